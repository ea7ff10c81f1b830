//! What each command does, one file per command.

pub mod activity;
pub mod backup;
pub mod broker;
pub mod claim_check;
pub mod cluster;
pub mod demo;
pub mod dlq;
pub mod group;
pub mod log;
pub mod topic;
pub mod up;
