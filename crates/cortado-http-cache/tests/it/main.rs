//! The manager under the middleware for reqwest, in front of a server that the tests start on a
//! free port of the loopback device. Freshness is a matter of the server's headers, so no test
//! waits for time to pass.

mod budget;
mod rules;
mod stress;
mod support;
