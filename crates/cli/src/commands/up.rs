//! `tidings up`: the whole platform.

use crate::args::UpArgs;
use crate::config::Config;
use crate::platform::{Platform, block_on, log_to_stderr};
use crate::shutdown::StopSignal;

/// Runs until told to stop.
pub fn run(args: &UpArgs) -> anyhow::Result<()> {
    let config = Config::of_up(args)?;
    log_to_stderr(&config.log)?;
    block_on(async {
        let mut stop = StopSignal::install()?;
        let platform = tokio::select! {
            platform = Platform::start(&config) => platform?,
            () = stop.received() => return Ok(()),
        };
        platform.ready().announce(config.ready_file.as_deref())?;
        stop.received().await;
        tracing::info!("stopping");
        stop.finish(platform.shutdown()).await;
        Ok(())
    })
}
