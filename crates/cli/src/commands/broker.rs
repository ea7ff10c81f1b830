//! `tidings broker`: the broker alone.

use std::sync::Arc;

use crate::args::BrokerArgs;
use crate::backup::require_restored;
use crate::config::Config;
use crate::control::Control;
use crate::platform::{block_on, log_to_stderr, snapshot, start_broker, stop_broker};
use crate::ready::{Ready, remove_stale};
use crate::reload::Reload;
use crate::shutdown::StopSignal;

/// Runs until told to stop.
pub fn run(args: &BrokerArgs) -> anyhow::Result<()> {
    // Settings may be wrong, too.
    remove_stale(args.server.ready_file.as_deref())?;
    let config = Config::of_broker(&args.server)?;
    remove_stale(config.ready_file.as_deref())?;
    let log_filter = log_to_stderr(&config.log)?;
    require_restored(&config.data_dir)?;
    block_on(async {
        let mut stop = StopSignal::install()?;
        let args = args.server.clone();
        let mut reload = Reload::install(config.clone(), log_filter, move || Config::of_broker(&args))?;
        let broker = Arc::new(start_broker(&config).await?);
        let control = Control::start(&config.data_dir, snapshot::of_broker(&broker));
        let ready = Ready::new(Some(broker.local_addr()), None);
        ready.announce(config.ready_file.as_deref())?;
        tokio::select! {
            () = stop.received() => {}
            () = reload.run(|_| ()) => {}
        }
        tracing::info!("stopping");
        ready.withdraw(config.ready_file.as_deref());
        drop(control);
        match Arc::try_unwrap(broker) {
            Ok(broker) => stop.finish(stop_broker(broker)).await,
            Err(_) => {
                tracing::warn!("a snapshot is being made: the next start will recover the data directory")
            }
        }
        Ok(())
    })
}
