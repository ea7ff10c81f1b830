//! DescribeAcls, versions 1 to 3: nobody keeps ACLs here, and whoever asks is told so.
//!
//! What Apache Kafka answers where no authorizer is configured. Version 1 tells patterns from literal names (KIP-290), 2 has
//! tagged fields, 3 users as resources (KIP-373).

use tidings_model::ErrorCode;
use tidings_wire::messages::describe_acls_request::DescribeAclsRequest;
use tidings_wire::messages::describe_acls_response::DescribeAclsResponse;

use crate::handlers::Cx;

pub(crate) async fn handle(_cx: &Cx<'_>, _request: DescribeAclsRequest) -> DescribeAclsResponse {
    DescribeAclsResponse {
        error_code: ErrorCode::SecurityDisabled.code(),
        error_message: Some("No Authorizer is configured on the broker".to_owned()),
        ..DescribeAclsResponse::default()
    }
}
