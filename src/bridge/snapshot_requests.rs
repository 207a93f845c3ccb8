//! Validates a snapshot request at once, instead of logging an error later.
//!
//! Queries the server which published tables match the names, and whether it accepts the condition
//! for each.

use std::sync::Arc;

use tokio_postgres::Client;

use super::Bridge;
use crate::admin::{Desk, Refusal};
use crate::config::Resolved;
use crate::error;
use crate::postgres::publication::{self, Names, TableName};
use crate::postgres::{self, ConnInfo, ConnectOptions};
use crate::snapshot::{Asked, plan};

/// Most tables that an error names if none matches.
const NAMED: usize = 5;

impl Bridge {
    /// The admin endpoint's handler of snapshot requests.
    #[must_use]
    pub fn desk(&self) -> Desk {
        let bridge = self.clone();
        Desk {
            control: Arc::clone(&self.control),
            judge: Arc::new(move |asked| {
                let configured = Arc::clone(&bridge.configured.borrow());
                Box::pin(
                    async move { judge(&configured.settings, &configured.conninfo, &asked).await },
                )
            }),
            token: self.settings.admin_token.clone(),
            is_local: self.settings.admin.listen.ip().is_loopback(),
        }
    }
}

async fn judge(
    settings: &Resolved,
    info: &ConnInfo,
    asked: &Asked,
) -> Result<Vec<String>, Refusal> {
    let client = postgres::client::connect(info, &ConnectOptions::of(settings))
        .await
        .map_err(unavailable)?;
    let published = published(&client, settings).await.map_err(unavailable)?;
    let names = asked.check().map_err(|error| Refusal::new(400, error.to_string(), ""))?;
    let all = published.iter().map(|of| (of.schema.as_str(), of.name.as_str()));
    if let Some(name) = names.unmatched(all) {
        return Err(none(name, &published, settings));
    }
    let mut tables: Vec<&TableName> =
        published.iter().filter(|of| names.matches(&of.schema, &of.name)).collect();
    tables.sort_unstable();
    tables.dedup();
    if let Some(condition) = &asked.condition {
        for table in &tables {
            takes(&client, table, condition).await?;
        }
    }
    Ok(tables.into_iter().map(ToString::to_string).collect())
}

/// The published tables that are captured.
async fn published(
    client: &Client,
    settings: &Resolved,
) -> Result<Vec<TableName>, postgres::Error> {
    let version = postgres::client::server_version(client).await?;
    let survey = publication::survey(client, Names::of(settings), version).await?;
    let tables: Vec<TableName> = match survey.main {
        Some(main) if main.is_by_table => {
            let inserts = survey.inserts.into_iter().flat_map(|inserts| inserts.tables.into_keys());
            main.tables.into_keys().chain(inserts).collect()
        }
        _ => survey.candidates.into_iter().map(|candidate| candidate.table).collect(),
    };
    let captured = |of: &TableName| settings.captured.matches(&of.schema, &of.name);
    Ok(tables.into_iter().filter(captured).collect())
}

fn none(name: &str, published: &[TableName], settings: &Resolved) -> Refusal {
    let mut named: Vec<String> = published.iter().take(NAMED).map(ToString::to_string).collect();
    if published.len() > NAMED {
        named.push(format!("{} more", published.len() - NAMED));
    }
    let publication = &settings.publication;
    let error = format!("no published table matches {name:?}");
    let fix = match named.as_slice() {
        [] => format!("the publication {publication:?} has no table: widen postgres.tables"),
        named => format!(
            "the publication {publication:?} has {}; add others to postgres.tables",
            named.join(", ")
        ),
    };
    Refusal::new(404, error, &fix)
}

async fn takes(client: &Client, table: &TableName, condition: &str) -> Result<(), Refusal> {
    let refused = plan::refusal(client, table, condition).await.map_err(unavailable)?;
    let Some(refused) = refused else { return Ok(()) };
    let error = format!("the server refuses the condition for {table}: {}", refused.text);
    Err(Refusal::new(422, error, "write it as it would follow WHERE"))
}

fn unavailable(error: postgres::Error) -> Refusal {
    let error = format!("querying the database: {}", error::told(&error));
    Refusal::new(503, error, "try again when it responds")
}
