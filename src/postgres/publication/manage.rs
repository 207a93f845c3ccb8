//! Makes the publications match the configuration: completely at the start and at each check, and
//! for single tables when they are altered or their rows are read.

use tokio_postgres::Client;

use crate::config::Resolved;
use crate::postgres::filters::{self, Asked, Filters, Probes, ServerFacts};
use crate::postgres::keys::{self, KeyFaults};
use crate::postgres::preflight::Shortfall;
use crate::postgres::publication::{
    self, Inserts, LONG_PATIENCE, Limited, Names, PATIENCE, Plan, Survey, TableName, Wanted,
    streamed,
};
use crate::postgres::{self, client};

/// What has to be done, and the facts that it is based on.
pub(crate) struct Look {
    pub(crate) survey: Survey,
    pub(crate) filters: Filters,
    /// Problems with configured keys.
    pub(crate) keys: KeyFaults,
    pub(crate) plan: Plan,
    pub(crate) version: u32,
}

/// Plans what has to be done. `is_named` is whether the stream has the publication for inserts.
///
/// # Errors
/// When the server can't be queried.
pub(crate) async fn plan(
    client: &Client,
    settings: &Resolved,
    survey: Survey,
    is_named: bool,
    (is_start, probes): (bool, &mut Probes),
) -> Result<Look, postgres::Error> {
    let version = client::server_version(client).await?;
    let mut survey = survey;
    let inserts = if may_alter(settings, &survey) {
        survey.inserts(is_named)
    } else {
        // The plan is for a DBA, who may do all of it.
        survey.candidates.iter_mut().for_each(|candidate| candidate.is_owned = true);
        Inserts::Used
    };
    let server = ServerFacts { version, present: survey.present(), is_start };
    let filters = filters::settle(client, settings, &survey.candidates, server, probes).await?;
    let tables = survey.candidates.iter().map(|candidate| &candidate.table);
    let keys = keys::check(client, settings, survey.main.as_ref(), tables, version).await?;
    let wanted = wanted(settings, &filters, version, inserts);
    let plan = publication::plan(&survey.candidates, &wanted, survey.present());
    Ok(Look { survey, filters, keys, plan, version })
}

/// Whether rowcast may alter or create the publication.
pub(crate) fn may_alter(settings: &Resolved, survey: &Survey) -> bool {
    settings.manage && survey.main.as_ref().is_none_or(|main| main.is_owned && main.is_by_table)
}

/// Reads the publications, and plans what has to be done; a table that can't be keyed or filtered
/// as configured is not added, and a published one remains as it is.
///
/// # Errors
/// When the server can't be queried.
pub(crate) async fn look(
    client: &Client,
    settings: &Resolved,
    is_named: bool,
    probes: &mut Probes,
) -> Result<Look, postgres::Error> {
    look_at(client, settings, is_named, probes, None).await
}

/// The same for the table with this OID only, if set.
async fn look_at(
    client: &Client,
    settings: &Resolved,
    is_named: bool,
    probes: &mut Probes,
    oid: Option<u32>,
) -> Result<Look, postgres::Error> {
    let version = client::server_version(client).await?;
    let survey = publication::survey_of(client, Names::of(settings), version, oid).await?;
    let mut look = plan(client, settings, survey, is_named, (false, probes)).await?;
    let (keys, filters) = (&look.keys, &look.filters);
    look.plan.keep_out(|table| keys.refused.contains_key(table) || filters.keeps_out(table));
    Ok(look)
}

fn wanted<'a>(
    settings: &'a Resolved,
    filters: &'a Filters,
    server_version: u32,
    inserts: Inserts,
) -> Wanted<'a> {
    Wanted {
        names: Names::of(settings),
        captured: &settings.captured,
        skipped: settings.skipped.as_slice(),
        via_root: settings.via_root,
        published: &filters.published,
        conditions: &filters.conditions,
        server_version,
        inserts,
        signals: settings.signal_table.as_ref(),
    }
}

/// Updates the column list of a table that was altered, as far as it is configured and the role
/// may: a column list does not include new columns automatically.
///
/// The server applies it to what is written from now on.
///
/// # Errors
/// When it can't be done. Nothing hidden is published because of that, and the next start tries
/// again.
pub(crate) async fn follow(
    client: &Client,
    settings: &Resolved,
    is_named: bool,
    oid: u32,
) -> Result<(), postgres::Error> {
    if let Some(altered) = altered(client, settings, is_named, oid).await? {
        let altered: Vec<_> = altered.main.alter.iter().chain(&altered.inserts.alter).collect();
        let (publication, altered) = (&settings.publication, list(&altered));
        tracing::info!(publication, altered, "publication altered, as the table was");
    }
    Ok(())
}

async fn altered(
    client: &Client,
    settings: &Resolved,
    is_named: bool,
    oid: u32,
) -> Result<Option<Plan>, postgres::Error> {
    // Only this table, because very many tables may be described at once.
    let Some(table) = publication::name(client, oid).await? else { return Ok(None) };
    if !settings.manage || settings.tables.columns(&table.schema, &table.name).is_none() {
        return Ok(None);
    }
    // Publishing waits for this: so no table is locked for it, and its row filter remains as it is.
    let mut probes = Probes::new(Asked::Nothing);
    let look = look_at(client, settings, is_named, &mut probes, Some(oid)).await?;
    let mut plan = look.plan;
    for change in [&mut plan.main, &mut plan.inserts] {
        change.add.clear();
        change.remove.clear();
    }
    let plan = plan.limited_to(|other| *other == table);
    if plan.is_empty() {
        return Ok(None);
    }
    publication::apply(client, Names::of(settings), &plan, PATIENCE).await?;
    Ok(Some(plan))
}

/// Adds a table to the publication, or moves it there from the one for inserts. Returns whether it
/// was added just now.
///
/// # Errors
/// When that is not permitted or not allowed.
pub(crate) async fn publish_table(
    client: &Client,
    settings: &Resolved,
    is_named: bool,
    table: &TableName,
) -> Result<bool, postgres::Error> {
    let names = Names::of(settings);
    // A partition is published with its root, however its changes are sent.
    let members = publication::with_ancestors(client, table).await?;
    let mut probes = Probes::new(Asked::Of(members.clone()));
    let Look { plan, survey, version, mut keys, filters } =
        look(client, settings, is_named, &mut probes).await?;
    let is_by_table = survey.main.as_ref().is_none_or(|main| main.is_by_table);
    let not_owned = plan.main.not_owned.iter().any(|(table, _)| members.contains(table));
    let plan = plan.limited_to(|table| members.contains(table));
    let is_put_in = !plan.main.add.is_empty() || !plan.inserts.add.is_empty();
    let is_there = streamed::is_published(client, names, table, version).await?;
    if is_there && (!is_by_table || !is_put_in || not_owned || !settings.manage) {
        return Ok(false);
    }
    let refused = |cause: String, fix: String| postgres::Error::Preflight {
        shortfalls: vec![Shortfall { cause, fix }],
    };
    if let Some(fault) = members.iter().find_map(|table| keys.refused.remove(table)) {
        return Err(postgres::Error::Preflight { shortfalls: vec![fault] });
    }
    let of_members = filters.shortfalls.into_iter().filter(|(table, _)| members.contains(table));
    let shortfalls: Vec<Shortfall> = of_members.map(|(_, shortfall)| shortfall).collect();
    if !shortfalls.is_empty() {
        return Err(postgres::Error::Preflight { shortfalls });
    }
    if survey.main.is_none() || !is_put_in {
        let limited = plan.left_out.iter().find(|limited| members.contains(&limited.table));
        let (cause, fix) = match limited {
            Some(Limited { cause, fix, .. }) => (cause.as_str(), fix.clone()),
            None => {
                let fix = "widen postgres.tables, or start rowcast again".to_owned();
                ("the table or the publication is gone, or postgres.tables does not match it", fix)
            }
        };
        let publication = names.main;
        return Err(refused(
            format!("{table} can't be added to the publication {publication:?}: {cause}"),
            fix,
        ));
    }
    if !settings.manage || not_owned {
        return Err(refused(
            format!(
                "{table} is not in the publication {:?}, and this role may not add it, or \
                 postgres.manage is false",
                names.main
            ),
            format!("as a DBA: {}", plan.script(names)),
        ));
    }
    publication::apply(client, names, &plan, PATIENCE).await?;
    tell_altered(names, &plan, "publication altered, for a snapshot");
    Ok(true)
}

/// Logs the changes of both publications.
pub(crate) fn tell_altered(names: Names<'_>, plan: &Plan, what: &str) {
    for (publication, change) in [(names.main, &plan.main), (names.inserts, &plan.inserts)] {
        if change.is_empty() {
            continue;
        }
        tracing::info!(
            publication,
            added = list(&change.add),
            removed = list(&change.remove),
            altered = list(&change.alter),
            operations = ?change.operations,
            via_partition_root = ?change.via_root,
            "{}",
            if change.create { "publication created" } else { what }
        );
    }
}

/// Makes the publications match the configuration, at the start.
///
/// # Errors
/// When the server refuses.
pub(crate) async fn publish(
    client: &Client,
    settings: &Resolved,
    survey: &Survey,
    plan: &Plan,
) -> Result<(), postgres::Error> {
    let names = Names::of(settings);
    if survey.main.as_ref().is_some_and(|publication| !publication.is_by_table) {
        let publication = names.main;
        tracing::info!(
            publication,
            "the publication is for all tables or whole schemas; leaving it as it is"
        );
        return Ok(());
    }
    if plan.is_empty() {
        return Ok(());
    }
    if !settings.manage {
        let change = &plan.main;
        if !change.is_empty() {
            tracing::warn!(
                publication = names.main,
                missing = list(&change.add),
                surplus = list(&change.remove),
                other = list(&change.alter),
                operations = ?change.operations,
                via_partition_root = ?change.via_root,
                "the publication is not as configured; leaving it, because postgres.manage is \
                 false"
            );
        }
        return Ok(());
    }
    let applied = match publication::apply(client, names, plan, PATIENCE).await {
        Err(error) if publication::lock_is_taken(&error) => {
            apply_one_by_one(client, names, plan).await
        }
        applied => applied,
    };
    applied?;
    tell_altered(names, plan, "publication altered");
    if plan.main.create && plan.main.add.is_empty() {
        tracing::warn!(tables = ?settings.captured, "no table matches postgres.tables yet");
    }
    Ok(())
}

/// Carries out a plan table by table, so that it never waits long for one lock while it holds
/// another: otherwise the server might end the application's transaction as a deadlock.
async fn apply_one_by_one(
    client: &Client,
    names: Names<'_>,
    plan: &Plan,
) -> Result<(), postgres::Error> {
    for part in plan.one_by_one() {
        publication::apply(client, names, &part, LONG_PATIENCE).await?;
    }
    Ok(())
}

/// Names for a log line: all if few, else the first and how many more.
pub(crate) fn list<T: ToString>(items: &[T]) -> String {
    const LISTED: usize = 20;
    let names: Vec<String> = items.iter().take(LISTED).map(ToString::to_string).collect();
    match items.len().saturating_sub(LISTED) {
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    }
}
