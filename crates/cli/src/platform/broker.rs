//! The embedded broker, from the settings.

use std::sync::Arc;

use anyhow::anyhow;
use tidings_broker::{Broker, BrokerHandle, BrokerOptions, BrokerSettings, SettingError, SystemClock};

use crate::config::{BrokerSetting, Config};

/// Starts the broker; returns when it accepts connections.
pub async fn start_broker(config: &Config) -> anyhow::Result<BrokerHandle> {
    let options = BrokerOptions {
        listen: config.kafka,
        insecure: config.insecure,
        advertised: config.advertised.clone(),
        data_dir: config.data_dir.clone(),
        settings: settings(&config.broker)?,
        clock: Arc::new(SystemClock::new()),
    };
    let broker = Broker::start(options).await?;
    tracing::info!(address = %broker.local_addr(), data_dir = %config.data_dir.display(), "the broker is up");
    Ok(broker)
}

/// Stops the broker and closes its data directory; what goes wrong is in the log, for the data is safe either way.
pub async fn stop_broker(broker: BrokerHandle) {
    if let Err(error) = broker.shutdown().await {
        tracing::warn!(%error, "the data directory was not closed cleanly, the next start will recover it");
    }
}

/// Fails if the broker would not take these settings.
pub fn check_settings(config: &Config) -> anyhow::Result<()> {
    settings(&config.broker).map(drop)
}

/// Hands the settings over; an error names the place where the setting was made.
fn settings(settings: &[BrokerSetting]) -> anyhow::Result<BrokerSettings> {
    let pairs = settings.iter().map(|setting| (setting.key.as_str(), setting.value.as_str()));
    BrokerSettings::parse(pairs).map_err(|error| {
        let (SettingError::Unknown { key, .. } | SettingError::Invalid { key, .. }) = &error;
        let place = settings.iter().find(|setting| setting.key == *key).map(|setting| setting.source.clone());
        match place {
            Some(place) if !place.is_empty() => anyhow!(error).context(place),
            _ => anyhow!(error),
        }
    })
}
