//! The client that only has connections open, so that a server can be looked at meanwhile.

use std::io::{self, Write};

use crate::client::open;
use crate::setup::Setup;
use crate::Result;

/// Opens connections, makes one call over each, says so, and keeps them until the standard input ends.
pub(crate) fn run(setup: &Setup, address: &str, count: &str) -> Result<()> {
    let count: usize = count.parse()?;
    let _open = (0..count).map(|_| open(setup, address)).collect::<Result<Vec<_>>>()?;
    println!("{{\"peer\":\"capnp-threads\",\"mode\":\"idle\",\"count\":{count}}}");
    io::stdout().flush()?;
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(())
}
