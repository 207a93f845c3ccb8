//! `rowcast snapshot`: requests snapshots from a running bridge and shows their progress.

use std::time::{Duration, Instant};

use clap::{ArgGroup, Args};
use serde::de::DeserializeOwned;

use super::ask::{Answer, AskArgs, Bridge};
use super::{CliError, GlobalArgs};
use crate::admin::{Accepted, List, Listed, Refusal};
use crate::snapshot::progress::duration;
use crate::snapshot::{Asked, SnapshotState};

/// Time between two status requests for a followed snapshot, and between two printed lines.
const LOOK: Duration = Duration::from_millis(250);
const LINE: Duration = Duration::from_secs(2);

/// Have a running bridge publish the rows of tables while it streams their changes
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("what").required(true).args(["tables", "list", "pause", "resume", "stop"])))]
#[command(after_help = "\
The rows come as events with op \"r\". The tables must be among those that are published; others come \
in by postgres.tables. Asks the address in admin.listen, with the token of admin.token_file if there \
is one.

Examples:
  rowcast snapshot public.trips --follow
  rowcast snapshot 'public.trips_*' --where \"fare > 100\"
  rowcast snapshot --list
  rowcast snapshot --pause 0199d3f4-5a0c-7cc1-8f39-3b7c5e0f8d11")]
pub(super) struct SnapshotArgs {
    /// Tables, or globs of schema.table
    #[arg(value_name = "TABLE")]
    tables: Vec<String>,
    /// Only rows for which this SQL condition holds
    #[arg(long = "where", value_name = "SQL", requires = "tables")]
    condition: Option<String>,
    /// Show its progress until it is done; exit code 0 when all rows are published
    #[arg(long, requires = "tables")]
    follow: bool,
    /// List running snapshots and those that ended recently
    #[arg(long)]
    list: bool,
    /// Pause a snapshot
    #[arg(long, value_name = "ID")]
    pause: Option<String>,
    /// Resume it
    #[arg(long, value_name = "ID")]
    resume: Option<String>,
    /// Stop it
    #[arg(long, value_name = "ID")]
    stop: Option<String>,
    #[command(flatten)]
    ask: AskArgs,
}

pub(super) async fn run(args: SnapshotArgs, global: &GlobalArgs) -> Result<(), CliError> {
    let bridge = args.ask.bridge(global)?;
    for (id, action, done) in [
        (&args.pause, "pause", "pauses"),
        (&args.resume, "resume", "goes on"),
        (&args.stop, "stop", "stops"),
    ] {
        if let Some(id) = id {
            let path = format!("/snapshots/{}/{action}", encoded(id));
            let _accepted: Accepted = read(&bridge, bridge.post(&path, "").await?)?;
            return super::print(&format!("snapshot {id} {done}\n"));
        }
    }
    if args.list {
        return super::print(&table(&list(&bridge).await?.snapshots));
    }
    let asked = Asked { tables: args.tables, condition: args.condition };
    // Text can always be written as JSON.
    let body = serde_json::to_string(&asked).unwrap_or_default();
    let accepted: Accepted = read(&bridge, bridge.post("/snapshots", &body).await?)?;
    let tables = accepted.tables.join(", ");
    super::print(&format!("snapshot {} of {tables}\n", accepted.id))?;
    if args.follow { follow(&bridge, &accepted.id).await } else { Ok(()) }
}

async fn list(bridge: &Bridge) -> Result<List, CliError> {
    read(bridge, bridge.get("/snapshots").await?)
}

/// Prints a line when something changed, at most every two seconds, until all tables have ended.
async fn follow(bridge: &Bridge, id: &str) -> Result<(), CliError> {
    let mut told: Option<(Instant, String)> = None;
    loop {
        let mut own = list(bridge).await?.snapshots;
        own.retain(|listed| listed.status.id == id);
        let ended = own.iter().all(|listed| listed.status.state.is_end());
        let text: String = own.iter().map(line).collect();
        let is_due = told
            .as_ref()
            .is_none_or(|(at, before)| *before != text && (ended || at.elapsed() >= LINE));
        if is_due {
            super::print(&text)?;
            told = Some((Instant::now(), text));
        }
        if ended {
            let is_done = |listed: &Listed| listed.status.state == SnapshotState::Done;
            // A snapshot that a restarted bridge does not know did not finish.
            return match own.iter().find(|listed| !is_done(listed)) {
                None if !own.is_empty() => Ok(()),
                unfinished => Err(CliError::SnapshotUnfinished {
                    id: id.to_owned(),
                    reason: unfinished.map_or_else(
                        || "the bridge does not know it any more".to_owned(),
                        |listed| line(listed).trim().to_owned(),
                    ),
                }),
            };
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// `public.trips  running  42.0 %  120000 rows  35000 rows/s  12s left`.
fn line(listed: &Listed) -> String {
    let status = &listed.status;
    let mut parts = vec![status.table.clone(), status.state.word().to_owned()];
    parts.extend(listed.percent.map(|percent| format!("{percent:.1} %")));
    parts.push(format!("{} rows", status.rows));
    parts.extend(listed.rows_per_second.map(|rows| format!("{rows} rows/s")));
    parts.extend(listed.eta_seconds.map(|left| format!("{} left", duration(left))));
    parts.extend(status.note.clone());
    parts.join("  ") + "\n"
}

/// The list, one block per request.
fn table(snapshots: &[Listed]) -> String {
    if snapshots.is_empty() {
        return "no snapshots\n".to_owned();
    }
    let mut text = String::new();
    let mut of = "";
    for listed in snapshots {
        let status = &listed.status;
        if of != status.id {
            of = &status.id;
            let condition = status.condition.as_ref();
            let condition = condition.map_or_else(String::new, |sql| format!(" where {sql}"));
            text += &format!("{} ({}){condition}\n", status.id, status.reason.word());
        }
        text += &format!("  {}", line(listed));
    }
    text
}

/// The content of the response, or the bridge's refusal.
fn read<T: DeserializeOwned>(bridge: &Bridge, answer: Answer) -> Result<T, CliError> {
    let Answer { code, body } = answer;
    let address = bridge.address;
    if (200..300).contains(&code) {
        return serde_json::from_str(&body)
            .map_err(|error| CliError::Status { address, reason: error.to_string() });
    }
    Err(match serde_json::from_str::<Refusal>(&body) {
        Ok(refusal) => CliError::Refused { code, error: refusal.error, fix: refusal.fix },
        Err(_) => CliError::Status { address, reason: format!("it answers {code}") },
    })
}

/// An ID as part of a URL path.
fn encoded(id: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    let part =
        |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    id.bytes().map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::SnapshotReason;
    use crate::snapshot::SnapshotStatus;

    #[test]
    fn the_list_has_a_block_for_each_request_and_a_line_for_each_table() {
        assert_eq!(table(&[]), "no snapshots\n");
        let listed = |id: &str, table: &str, state| Listed {
            status: SnapshotStatus {
                id: id.to_owned(),
                table: table.to_owned(),
                reason: SnapshotReason::Asked,
                condition: (id == "7").then(|| "fare > 1".to_owned()),
                state,
                rows: 100,
                rows_estimated: Some(400),
                note: None,
            },
            percent: (state == SnapshotState::Running).then_some(25.0),
            rows_per_second: (state == SnapshotState::Running).then_some(50),
            eta_seconds: (state == SnapshotState::Running).then_some(6),
        };
        let mut failed = listed("8", "public.c", SnapshotState::Failed);
        failed.status.note = Some("there is no such table".to_owned());
        let text = table(&[
            listed("7", "public.a", SnapshotState::Running),
            listed("7", "public.b", SnapshotState::Waiting),
            failed,
        ]);
        assert_eq!(
            text,
            "7 (asked) where fare > 1\n  \
             public.a  running  25.0 %  100 rows  50 rows/s  6s left\n  \
             public.b  waiting  100 rows\n\
             8 (asked)\n  \
             public.c  failed  100 rows  there is no such table\n"
        );
    }

    #[test]
    fn an_id_can_be_no_other_path() {
        assert_eq!(encoded("0199d3f4-5a0c"), "0199d3f4-5a0c");
        assert_eq!(encoded("a/../b c?"), "a%2F..%2Fb%20c%3F");
    }
}
