//! The near cache against real servers, which the tests start on free ports of the loopback device.

mod basics;
mod doubts;
mod down;
mod expiry;
mod invalidated;
mod stress;
mod support;
