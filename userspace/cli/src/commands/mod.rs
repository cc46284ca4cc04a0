//! One module per command: what it does with its arguments, and what it prints.

pub mod check;
pub mod clean;
pub mod diff;
pub mod iface;
pub mod policy;
pub mod policy_fmt;
pub mod policy_test;
pub mod program;
pub mod run;
pub mod schema;
pub mod status;
pub mod table;
