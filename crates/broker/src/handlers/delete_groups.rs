//! DeleteGroups, versions 0 to 2: empty groups go, with their offsets (KIP-229).

use tidings_model::ErrorCode;
use tidings_wire::messages::delete_groups_request::DeleteGroupsRequest;
use tidings_wire::messages::delete_groups_response::{DeletableGroupResult, DeleteGroupsResponse};

use crate::handlers::Cx;
use crate::mentions::first_of_each;

pub(crate) async fn handle(cx: &Cx<'_>, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
    let mut results: Vec<DeletableGroupResult> = Vec::with_capacity(request.groups_names.len());
    // One answer for one group, as in Kafka.
    for group_id in first_of_each(request.groups_names, String::clone) {
        let error = delete(cx, &group_id).await;
        results.push(DeletableGroupResult {
            group_id,
            error_code: error.code(),
            ..DeletableGroupResult::default()
        });
    }
    DeleteGroupsResponse { results, ..DeleteGroupsResponse::default() }
}

async fn delete(cx: &Cx<'_>, group_id: &str) -> ErrorCode {
    let ids = vec![group_id.to_owned()];
    let answer = cx.shared.groups.call(group_id, |groups, now_ms| groups.delete_groups(now_ms, ids)).await;
    match answer {
        Some(response) => response.groups.first().map_or(ErrorCode::UnknownServerError, |group| group.error),
        // Without an offsets topic there is no group.
        None => ErrorCode::GroupIdNotFound,
    }
}
