//! `tidings broker`: the broker alone.

use crate::args::BrokerArgs;
use crate::config::Config;
use crate::platform::{block_on, log_to_stderr, start_broker, stop_broker};
use crate::ready::Ready;
use crate::shutdown::StopSignal;

/// Runs until told to stop.
pub fn run(args: &BrokerArgs) -> anyhow::Result<()> {
    let config = Config::of_broker(&args.server)?;
    log_to_stderr(&config.log)?;
    block_on(async {
        let mut stop = StopSignal::install()?;
        let broker = start_broker(&config).await?;
        Ready::new(Some(broker.local_addr()), None).announce(config.ready_file.as_deref())?;
        stop.received().await;
        tracing::info!("stopping");
        stop.finish(stop_broker(broker)).await;
        Ok(())
    })
}
