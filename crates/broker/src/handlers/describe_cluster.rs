//! DescribeCluster, versions 0 to 2: the cluster id and the only node (KIP-700).
//!
//! Version 1 names the kind of endpoint (KIP-919): controllers are not described by a broker; version 2 can ask for
//! fenced brokers, of which there are none.

use tidings_model::ErrorCode;
use tidings_wire::messages::describe_cluster_request::DescribeClusterRequest;
use tidings_wire::messages::describe_cluster_response::{DescribeClusterBroker, DescribeClusterResponse};

use crate::handlers::Cx;
use crate::operations;

const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;

pub(crate) async fn handle(cx: &Cx<'_>, request: DescribeClusterRequest) -> DescribeClusterResponse {
    let error = match request.endpoint_type {
        BROKERS => ErrorCode::None,
        CONTROLLERS => ErrorCode::MismatchedEndpointType,
        _ => ErrorCode::UnsupportedEndpointType,
    };
    if error != ErrorCode::None {
        let error_message =
            Some(format!("this endpoint is a broker's, asked for endpoint type {}", request.endpoint_type));
        return DescribeClusterResponse {
            error_code: error.code(),
            error_message,
            ..DescribeClusterResponse::default()
        };
    }
    let (host, port) = cx.shared.advertised(cx.client);
    let broker_id = cx.shared.node_id;
    DescribeClusterResponse {
        endpoint_type: BROKERS,
        cluster_id: cx.shared.cluster_id.clone(),
        controller_id: broker_id,
        brokers: vec![DescribeClusterBroker { broker_id, host, port, ..DescribeClusterBroker::default() }],
        cluster_authorized_operations: operations::when(
            request.include_cluster_authorized_operations,
            operations::CLUSTER,
        ),
        ..DescribeClusterResponse::default()
    }
}
