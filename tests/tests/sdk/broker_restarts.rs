//! The only broker dies, and comes back with what it had acknowledged.

use tidings::testing::{Broker, BrokerOptions};

use crate::broker_kills::work_through;

#[test]
fn a_broker_that_is_killed_and_restarted_costs_no_record_and_no_order() {
    let broker = Broker::with(BrokerOptions { durable: true, ..BrokerOptions::default() }).unwrap();
    work_through(broker.bootstrap(), 3, |_, until_work_goes_on| {
        broker.kill().unwrap();
        broker.restart().unwrap();
        until_work_goes_on();
    });
}
