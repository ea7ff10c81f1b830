//! A broker under comparison: where it is, what it says it serves, and what is its own business.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::codec;
use crate::connection::{Connection, Received};
use crate::definitions::{Definitions, Versions};

/// A running broker.
#[derive(Debug)]
pub struct Broker {
    /// Its address.
    pub address: String,
    /// Its port, as answers name it.
    pub port: i64,
    /// Its cluster's id.
    pub cluster_id: String,
    /// The versions it says it serves, by the API's name.
    pub served: BTreeMap<String, Versions>,
}

impl Broker {
    /// Asks a running broker what it is.
    pub fn meet(address: &str, definitions: &Definitions) -> Result<Self> {
        let mut connection = Connection::open(address)?;
        let body = json!({"clientSoftwareName": "oracle", "clientSoftwareVersion": "1"});
        let versions = ask(&mut connection, definitions, "ApiVersions", 3, &body)?;
        ensure!(versions["errorCode"] == 0, "{address} does not say what it serves: {versions}");
        let mut served = BTreeMap::new();
        for api in versions["apiKeys"].as_array().context("read which APIs are served")? {
            let key = api["apiKey"].as_i64().context("read an API's key")?;
            let Some(api_of_key) = definitions.by_key(key) else { bail!("{address} serves the API {key}") };
            let version =
                |name: &str| i16::try_from(api[name].as_i64().unwrap_or(-1)).context("read a version");
            let range = Versions { first: version("minVersion")?, last: version("maxVersion")? };
            served.insert(api_of_key.name.clone(), range);
        }
        let cluster = ask(&mut connection, definitions, "DescribeCluster", 0, &json!({}))?;
        let cluster_id = cluster["clusterId"].as_str().context("read the cluster's id")?.to_owned();
        let (_, port) = address.rsplit_once(':').context("find the port")?;
        Ok(Self { address: address.to_owned(), port: port.parse()?, cluster_id, served })
    }
}

/// One request and its answer.
pub fn ask(
    connection: &mut Connection,
    definitions: &Definitions,
    api: &str,
    version: i16,
    body: &Value,
) -> Result<Value> {
    let api = definitions.api(api);
    let correlation_id = connection.correlation_id();
    connection.send(&codec::request_frame(api, version, correlation_id, body));
    match connection.receive()? {
        Received::Frame(frame) => Ok(codec::response(api, version, &frame)?.1),
        other => bail!("{} version {version} is not answered: {other:?}", api.name),
    }
}
