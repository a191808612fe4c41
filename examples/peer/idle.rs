//! The clients that have many connections open, so that a server can be looked at meanwhile.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::open;
use crate::setup::Setup;
use crate::Result;

/// Opens connections, makes one call over each, says so, and keeps them until the standard input ends.
pub(crate) fn run(setup: &Setup, address: &str, count: &str) -> Result<()> {
    let count: usize = count.parse()?;
    let _open = (0..count).map(|_| open(setup, address)).collect::<Result<Vec<_>>>()?;
    say("idle", count)?;
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(())
}

/// The same, and then makes a call a second over each for so many seconds, evenly spread, and says so again.
pub(crate) fn run_paced(setup: &Setup, address: &str, count: &str, seconds: &str) -> Result<()> {
    let (count, seconds): (u32, u32) = (count.parse()?, seconds.parse()?);
    let open = (0..count).map(|_| open(setup, address)).collect::<Result<Vec<_>>>()?;
    say("paced", count as usize)?;
    let start = Instant::now();
    let apart = Duration::from_secs(1) / count;
    let mut under_way = VecDeque::new();
    for (number, (_, client)) in (0..seconds).flat_map(|_| &open).enumerate() {
        let at = start + apart * u32::try_from(number)?;
        thread::sleep(at.saturating_duration_since(Instant::now()));
        let mut request = client.echo_request();
        request.get().set_data(&[7; 16]);
        under_way.push_back(request.send());
        if under_way.len() >= open.len() {
            under_way.pop_front().expect("there is one").wait()?;
        }
    }
    under_way.into_iter().try_for_each(|call| call.wait().map(drop))?;
    say("paced", count as usize)?;
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(())
}

fn say(mode: &str, count: usize) -> Result<()> {
    println!("{{\"peer\":\"capnp-threads\",\"mode\":\"{mode}\",\"count\":{count}}}");
    Ok(io::stdout().flush()?)
}
