//! Starts a broker on `127.0.0.1:9092` or the address given, with its data in `./tidings-data` or the folder given.

use std::sync::Arc;

use tidings_broker::{Broker, BrokerOptions, BrokerSettings, SystemClock};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).init();
    let mut args = std::env::args().skip(1);
    let listen = args.next().unwrap_or_else(|| "127.0.0.1:9092".to_owned()).parse()?;
    let data_dir = args.next().unwrap_or_else(|| "./tidings-data".to_owned()).into();
    let settings: Vec<(String, String)> = args
        .filter_map(|set| set.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned())))
        .collect();
    let broker = Broker::start(BrokerOptions {
        listen,
        insecure: false,
        advertised: None,
        data_dir,
        settings: BrokerSettings::parse(settings)?,
        clock: Arc::new(SystemClock::new()),
    })
    .await?;
    println!("ready on {}", broker.local_addr());
    tokio::signal::ctrl_c().await?;
    broker.shutdown().await?;
    Ok(())
}
