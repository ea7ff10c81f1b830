//! CreateAcls, versions 1 to 3: each is refused, because nobody would look at it.
//!
//! What Apache Kafka answers where no authorizer is configured. Version 1 tells patterns from literal names (KIP-290), 2 has
//! tagged fields, 3 users as resources (KIP-373).

use tidings_model::ErrorCode;
use tidings_wire::messages::create_acls_request::CreateAclsRequest;
use tidings_wire::messages::create_acls_response::{AclCreationResult, CreateAclsResponse};

use crate::handlers::Cx;

pub(crate) async fn handle(_cx: &Cx<'_>, request: CreateAclsRequest) -> CreateAclsResponse {
    let refused = AclCreationResult {
        error_code: ErrorCode::SecurityDisabled.code(),
        error_message: Some("No Authorizer is configured.".to_owned()),
        ..AclCreationResult::default()
    };
    CreateAclsResponse { results: vec![refused; request.creations.len()], ..CreateAclsResponse::default() }
}
