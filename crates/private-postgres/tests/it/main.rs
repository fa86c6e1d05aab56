//! Real servers in scratch folders.

#[cfg(test)]
mod common;
#[cfg(test)]
mod helper;
#[cfg(test)]
mod server;
#[cfg(test)]
mod shared;
