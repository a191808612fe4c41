//! What a polite connection feels beside twenty others: well-behaved busy ones, and floods.
//!
//! The twenty run in a process of their own, with a lower priority than the server and the polite connection: what is
//! measured is whom the server attends to, and not how the system shares its processors among clients.

use std::io;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use capnp_threads::{Client, Vat};

use crate::generated::bench_capnp::bench::callback_params as fields;
use crate::polite::{Felt, Polite};
use crate::raw::{Raw, To, CAP, OBJECT};
use crate::server::{Method, INTERFACE};
use crate::{Result, Server, MANY};

/// How many times what it is beside busy connections the polite connection's 99th percentile may be beside floods.
const MOST_RATIO: f64 = 5.0;
/// How many calls a busy connection has outstanding.
const WINDOW: usize = 32;
/// How long each kind of crowd is measured, in a long form and in a short one.
const TIME: [Duration; 2] = [Duration::from_secs(6), Duration::from_millis(1500)];
/// A flood gives up when the server has taken nothing for so long.
const PATIENCE: Duration = Duration::from_secs(5);

/// The name of the crowd that keeps the protocol and waits for its answers.
const BUSY: &str = "busy connections";

/// What each of the twenty does.
struct Flood {
    name: &'static str,
    prepare: fn(&mut Raw) -> u32,
    step: fn(&mut Raw, u32),
}

const FLOODS: [Flood; 5] = [
    Flood { name: "unknown messages", prepare: |_| 0, step: |raw, _| raw.unknown() },
    Flood { name: "releases of nothing", prepare: |_| 0, step: |raw, _| raw.release(0, 0) },
    Flood {
        name: "calls on null paths",
        prepare: |_| 0,
        step: |raw, _| {
            let question = raw.call(To(OBJECT.0, &[3]), Method::Echo, &[], &[]);
            raw.finish(question);
        },
    },
    Flood {
        name: "bootstraps",
        prepare: |_| 0,
        step: |raw, _| {
            let question = raw.bootstrap();
            raw.finish(question);
        },
    },
    Flood {
        name: "calls on the shared object",
        prepare: |raw| raw.call(OBJECT, Method::Shared, &[], &[]),
        step: |raw, shared| {
            let question = raw.call(To(shared, CAP), Method::Echo, &[], &[]);
            raw.finish(question);
        },
    },
];

/// What the polite connection feels on an object of its own and on the one that all share.
struct Both {
    own: Felt,
    shared: Felt,
}

/// Measures, and prints. Gives the marks that were missed.
pub(crate) fn run(quick: bool) -> Result<Vec<String>> {
    println!(
        "\n{:<28} {:>10} {:>10} {:>7} {:>10} {:>10} {:>7}",
        "beside twenty", "median us", "p99 us", "ratio", "shared med", "shared p99", "ratio"
    );
    let time = TIME[usize::from(quick)];
    let busy = beside(time, BUSY)?;
    row(BUSY, &busy, &busy);
    let mut missed = Vec::new();
    for flood in &FLOODS {
        let felt = beside(time, flood.name)?;
        row(flood.name, &felt, &busy);
        for (which, felt, busy) in [("own", &felt.own, &busy.own), ("shared", &felt.shared, &busy.shared)] {
            let ratio = felt.p99 / busy.p99;
            if ratio.is_nan() || ratio > MOST_RATIO {
                missed
                    .push(format!("{}, {which} object: p99 {ratio:.1} times, mark {MOST_RATIO}", flood.name));
            }
        }
    }
    Ok(missed)
}

fn row(name: &str, felt: &Both, busy: &Both) {
    println!(
        "{name:<28} {:>10.0} {:>10.0} {:>7.2} {:>10.0} {:>10.0} {:>7.2}",
        felt.own.median,
        felt.own.p99,
        felt.own.p99 / busy.own.p99,
        felt.shared.median,
        felt.shared.p99,
        felt.shared.p99 / busy.shared.p99,
    );
}

/// Two polite connections to a new server beside a crowd.
fn beside(time: Duration, crowd: &str) -> Result<Both> {
    let server = Server::start()?;
    let polite = [Polite::new(server.address)?, Polite::of_shared(server.address)?];
    polite.iter().try_for_each(Polite::warm_up)?;
    let mut crowd = Command::new("nice")
        .args(["-n", "10"])
        .arg(std::env::current_exe()?)
        .args(["crowd", crowd, &server.address.to_string()])
        .stdin(Stdio::piped())
        .spawn()?;
    // The crowd fills what it can fill first.
    thread::sleep(time / 4);
    let measured = polite.each_ref().map(Polite::start);
    thread::sleep(time);
    let [own, shared] = measured.map(|measured| measured.stop());
    // It runs until its input ends.
    drop(crowd.stdin.take());
    match crowd.wait()?.success() {
        true => Ok(Both { own: own?, shared: shared? }),
        false => Err("the crowd failed".into()),
    }
}

/// Twenty connections that each do what the name says until the standard input ends.
pub(crate) fn crowd(name: &str, address: SocketAddr) -> Result<()> {
    let flood = FLOODS.iter().find(|flood| flood.name == name);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let one = || flood.map_or_else(|| busy(address, &over), |flood| flood.run_one(address, &over));
        let all: Vec<_> = (0..MANY).map(|_| scope.spawn(one)).collect();
        io::copy(&mut io::stdin(), &mut io::sink())?;
        over.store(true, Ordering::Relaxed);
        all.into_iter().try_for_each(|one| one.join().map_err(|_| "one of the crowd panicked")?)
    })
}

impl Flood {
    fn run_one(&self, address: SocketAddr, over: &AtomicBool) -> Result<()> {
        let mut raw = Raw::connect(address, PATIENCE)?;
        raw.read_all()?;
        let question = (self.prepare)(&mut raw);
        while !over.load(Ordering::Relaxed) {
            (self.step)(&mut raw, question);
            if raw.send().is_err() {
                return Err(format!("the flood of {} was not taken", self.name).into());
            }
        }
        Ok(())
    }
}

/// Keeps a window of calls outstanding, half on its own object and half on the shared one, and waits for each.
fn busy(address: SocketAddr, over: &AtomicBool) -> Result<()> {
    let connection = Vat::new().connect(address)?;
    let own: Client = connection.bootstrap();
    let shared = Polite::shared_of(&own)?;
    let call = |on: &Client| {
        let mut request = on.request(INTERFACE, Method::Echo as u16);
        request.get().init_as::<fields::Builder<'_>>().set_data(&[0; 16]);
        request.send()
    };
    while !over.load(Ordering::Relaxed) {
        let window: Vec<_> = (0..WINDOW).map(|n| call(if n % 2 == 0 { &own } else { &shared })).collect();
        for sent in window {
            sent.wait()?;
        }
    }
    Ok(())
}
