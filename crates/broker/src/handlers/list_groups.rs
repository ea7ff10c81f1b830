//! ListGroups, versions 0 to 5: the groups there are; version 4 filters by state (KIP-518), 5 by type (KIP-848).

use tidings_wire::messages::list_groups_request::ListGroupsRequest;
use tidings_wire::messages::list_groups_response::{ListGroupsResponse, ListedGroup};

use crate::handlers::Cx;

pub(crate) async fn handle(cx: &Cx<'_>, request: ListGroupsRequest) -> ListGroupsResponse {
    let lists =
        cx.shared.groups.look_all(|groups| groups.list_groups(&request.states_filter, &request.types_filter));
    let groups = lists
        .into_iter()
        .flatten()
        .map(|group| ListedGroup {
            group_id: group.group_id,
            protocol_type: group.protocol_type,
            group_state: group.state.as_str().to_owned(),
            group_type: group.group_type.to_owned(),
            ..ListedGroup::default()
        })
        .collect();
    ListGroupsResponse { groups, ..ListGroupsResponse::default() }
}
