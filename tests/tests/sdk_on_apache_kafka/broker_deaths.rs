//! Brokers of a cluster die, one after the other, while the others go on.

use tidings_tests::{ApacheCluster, jars};

use crate::broker_kills::work_through;

#[test]
fn brokers_that_die_one_after_the_other_cost_no_record_and_no_order() {
    let mut cluster = ApacheCluster::start(&jars());
    let (bootstrap, nodes_count) = (cluster.bootstrap(), cluster.nodes_count());
    work_through(&bootstrap, nodes_count, |node, until_work_goes_on| {
        cluster.kill(node);
        until_work_goes_on();
        cluster.revive();
    });
}
