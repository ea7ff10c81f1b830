//! Reaching a Kafka cluster from the command line.
//!
//! Owns the quick check that somebody listens: a Kafka client alone would keep trying for its whole timeout, and a person
//! should not wait ten seconds to learn of a typing error.

use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use anyhow::bail;
use tidings::Cluster;
use tidings::admin::Admin;

use crate::args::ClusterArgs;
use crate::config::ClientConfig;

/// How long one request to the cluster may take.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// The cluster, known to be listening at one of its addresses at least.
pub fn reach(args: &ClusterArgs) -> anyhow::Result<Cluster> {
    let config = ClientConfig::load(args.cluster_config.as_deref())?;
    let security = config.cluster.security()?;
    let bootstrap = args.bootstrap.clone().map_or_else(|| config.bootstrap(), Ok)?;
    let addresses: Vec<&str> = bootstrap.split(',').map(str::trim).filter(|text| !text.is_empty()).collect();
    if addresses.is_empty() {
        bail!("no bootstrap address given");
    }
    let mut reasons = Vec::new();
    for address in addresses {
        match try_connect(address) {
            Ok(()) => {
                let cluster = Cluster::new(bootstrap.as_str()).client_id("tidings-cli");
                return Ok(cluster.security(security));
            }
            Err(error) => reasons.push(format!("{address}: {error}")),
        }
    }
    bail!("no broker answers at {}", reasons.join("; "))
}

/// An administrator of the cluster.
pub fn admin(args: &ClusterArgs) -> anyhow::Result<Admin> {
    Ok(Admin::new(&reach(args)?, REQUEST_TIMEOUT)?)
}

fn try_connect(address: &str) -> std::io::Result<()> {
    let mut last = std::io::Error::other("the name has no address");
    for resolved in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&resolved, CONNECT_TIMEOUT) {
            Ok(_connected) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(last)
}
