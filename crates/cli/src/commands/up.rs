//! `tidings up`: the whole platform.

use crate::args::UpArgs;
use crate::backup::require_restored;
use crate::config::Config;
use crate::platform::{Platform, block_on, log_to_stderr};
use crate::ready::remove_stale;
use crate::reload::Reload;
use crate::shutdown::StopSignal;

/// Runs until told to stop.
pub fn run(args: &UpArgs) -> anyhow::Result<()> {
    // Settings may be wrong, too.
    remove_stale(args.server.ready_file.as_deref())?;
    let config = Config::of_up(args)?;
    remove_stale(config.ready_file.as_deref())?;
    let log_filter = log_to_stderr(&config.log)?;
    require_restored(&config.data_dir)?;
    block_on(async {
        let mut stop = StopSignal::install()?;
        let args = args.clone();
        let mut reload = Reload::install(config.clone(), log_filter, move || Config::of_up(&args))?;
        let platform = tokio::select! {
            platform = Platform::start(&config) => platform?,
            () = stop.received() => return Ok(()),
        };
        let ready = platform.ready();
        ready.announce(config.ready_file.as_deref())?;
        tokio::select! {
            () = stop.received() => {}
            () = reload.run(|config| platform.apply(config)) => {}
        }
        tracing::info!("stopping");
        ready.withdraw(config.ready_file.as_deref());
        stop.finish(platform.shutdown()).await;
        Ok(())
    })
}
