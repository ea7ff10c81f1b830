//! DeleteAcls, versions 1 to 3: each filter is refused, because there are no ACLs that it could match.
//!
//! What Apache Kafka answers where no authorizer is configured. Version 1 tells patterns from literal names (KIP-290), 2 has
//! tagged fields, 3 users as resources (KIP-373).

use tidings_model::ErrorCode;
use tidings_wire::messages::delete_acls_request::DeleteAclsRequest;
use tidings_wire::messages::delete_acls_response::{DeleteAclsFilterResult, DeleteAclsResponse};

use crate::handlers::Cx;

pub(crate) async fn handle(_cx: &Cx<'_>, request: DeleteAclsRequest) -> DeleteAclsResponse {
    let refused = DeleteAclsFilterResult {
        error_code: ErrorCode::SecurityDisabled.code(),
        error_message: Some("No Authorizer is configured.".to_owned()),
        ..DeleteAclsFilterResult::default()
    };
    DeleteAclsResponse {
        filter_results: vec![refused; request.filters.len()],
        ..DeleteAclsResponse::default()
    }
}
