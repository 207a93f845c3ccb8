//! `rowcast run`: the bridge itself.

use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use super::{CliError, Exit, GlobalArgs, SettingArgs, descriptors, progress};
use crate::admin::{self, Guard};
use crate::bridge::{Bridge, Reload};
use crate::check::Finding;
use crate::config::{Config, OnGap};
use crate::error::Error;
use crate::telemetry;

/// Longest time that ending takes after `kafka.drain_timeout`, in any state.
const OVERTIME: Duration = Duration::from_secs(15);

/// Run the bridge: publish every row change to Kafka until asked to stop
#[derive(Debug, Args)]
#[command(after_help = "\
The first run creates the publication and the replication slot. On SIGTERM or SIGINT it waits for \
records in flight to be acknowledged, for at most kafka.drain_timeout, and ends. SIGHUP reloads the \
configuration; an invalid one is logged and changes nothing.

Examples:
  DATABASE_URL=postgres:///taxi KAFKA_BROKERS=localhost:9092 rowcast run
  rowcast run --tables 'public.*' --name taxi")]
pub(super) struct RunArgs {
    /// Continue although changes were lost: never published and no longer readable; the log says
    /// which
    #[arg(long)]
    accept_gap: bool,
    #[command(flatten)]
    settings: SettingArgs,
}

pub(super) async fn run(args: RunArgs, global: GlobalArgs) -> Result<(), CliError> {
    let config = args.load(&global)?;
    let bars = telemetry::init(&config.log)?;
    telemetry::end_on_panic(i32::from(Exit::Bug as u8));
    // From here on SIGHUP does not end the process, nor does SIGTERM before it has drained.
    let hangups = signal(SignalKind::hangup()).map_err(CliError::Signal)?;
    let stop = told_to_stop();
    let bridge = Bridge::new(&config)?;
    descriptors::ensure()?;
    let _ending = AbortOnDrop(tokio::spawn(end_in_any_case(stop.clone(), bridge.clone())));
    let mut told = stop.clone();
    let _admin = tokio::select! {
        served = serve_admin(&bridge) => served?,
        Ok(_) = told.wait_for(|told| *told) => return Ok(()),
    };
    let shown = progress::show(bridge.observe().progress, bars);
    let _shown = AbortOnDrop(tokio::spawn(shown));
    let reloads = reload_on(hangups, bridge.clone(), move || args.load(&global));
    let _reloads = AbortOnDrop(tokio::spawn(crate::failpoint::within("reload", reloads)));
    let ended = bridge.run(stop.clone()).await;
    if let Err(error) = &ended {
        let mut told = stop;
        tokio::select! {
            () = report_the_rest(&bridge, error) => {}
            Ok(_) = told.wait_for(|told| *told) => {}
        }
    }
    ended?;
    Ok(())
}

/// Logs what else is to be fixed before a start can work. The error itself is printed last.
async fn report_the_rest(bridge: &Bridge, error: &Error) {
    for Finding { check, found, fix, .. } in bridge.check_besides(error).await {
        tracing::error!(check, fix, "also to be fixed: {found}");
    }
}

impl RunArgs {
    fn load(&self, global: &GlobalArgs) -> Result<Config, CliError> {
        let mut config = global.load(&self.settings)?.config;
        if self.accept_gap {
            config.postgres.on_gap = OnGap::Accept;
        }
        Ok(config)
    }
}

/// Reloads the configuration from all of its sources at each SIGHUP.
async fn reload_on(
    mut hangups: Signal,
    bridge: Bridge,
    load: impl Fn() -> Result<Config, CliError>,
) {
    while hangups.recv().await.is_some() {
        let reloaded = load().and_then(|config| Ok(bridge.reconfigure(&config)?));
        match reloaded {
            Ok(Reload { kept }) => {
                for kept in kept {
                    tracing::warn!("SIGHUP: {kept}");
                }
                tracing::info!("SIGHUP: configuration reloaded; a new session begins with it");
            }
            Err(error) => tracing::error!(%error, "SIGHUP: nothing is changed"),
        }
    }
}

/// Serves the admin endpoint for as long as the returned guard lives.
async fn serve_admin(bridge: &Bridge) -> Result<Option<AbortOnDrop>, CliError> {
    let settings = &bridge.settings().admin;
    if !settings.enabled {
        return Ok(None);
    }
    let listener = admin::listen(settings.listen).await.map_err(Error::from)?;
    let guard = Guard::new(settings, bridge.settings().admin_token.clone());
    let task = tokio::spawn(admin::serve(listener, bridge.observe(), bridge.desk(), guard));
    Ok(Some(AbortOnDrop(task)))
}

/// Ends the process if it is still running some time after it was asked to stop: a stuck thread
/// must not keep a supervisor waiting.
async fn end_in_any_case(mut stop: watch::Receiver<bool>, bridge: Bridge) {
    if stop.wait_for(|told| *told).await.is_err() {
        return;
    }
    let limit = bridge.drain_timeout() + OVERTIME;
    // On a thread of its own, because the runtime may be what is stuck.
    let end = move || {
        std::thread::sleep(limit);
        telemetry::last_words(&format!(
            "error: asked to stop, and after {} something is still running\nfix: please report \
             this, with the log\n",
            humantime::format_duration(limit)
        ));
        std::process::exit(i32::from(Exit::Retry as u8));
    };
    // Without this thread there is only no limit.
    let _ = std::thread::Builder::new().name("end".to_owned()).spawn(end);
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Turns true at the first SIGTERM or SIGINT from now on. A second signal ends the process at once,
/// without waiting for the brokers.
pub(super) fn told_to_stop() -> watch::Receiver<bool> {
    let (told, receiver) = watch::channel(false);
    let kinds = [SignalKind::terminate(), SignalKind::interrupt()];
    // The handlers are installed here, not in the task: the task may start late, and until then a
    // signal would end the process. On systems without these signals there is nothing to wait for.
    if let [Ok(mut terminate), Ok(mut interrupt)] = kinds.map(signal) {
        tokio::spawn(async move {
            for round in 0.. {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                if round > 0 {
                    tracing::warn!("asked to stop twice: ending without waiting for the brokers");
                    telemetry::flush();
                    std::process::exit(i32::from(Exit::Retry as u8));
                }
                told.send_replace(true);
            }
        });
    }
    receiver
}
