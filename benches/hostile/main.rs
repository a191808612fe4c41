//! Attacks on a default server, by raw wire messages: how much memory they make it hold, what other connections feel,
//! and what is given back when the attackers are gone.
//!
//! ```text
//! cargo bench --bench hostile                        all attacks, by one attacker and by twenty
//! cargo bench --bench hostile -- --quick             shorter attacks; fails if a mark is missed by double (CI runs this)
//! cargo bench --bench hostile -- --attackers N NAME… only these attacks, by so many attackers
//! cargo bench --bench hostile -- --fairness          only what a polite connection feels beside floods
//! cargo bench --bench hostile -- --list              the attacks by name
//! ```
//!
//! Each attack has a server of its own: this program again, as a child process, with the default limits. The parent
//! attacks it over TCP on the loopback, samples the child's resident memory, and measures a polite connection: one
//! small call at a time, with a pause of 1 ms between two. The row `nobody` has no attack in it: it says what
//! the polite connection measures alone.

mod attacks;
mod fairness;
#[path = "../../examples/generated/mod.rs"]
mod generated;
mod memory;
mod polite;
mod raw;
mod server;

use std::error::Error;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use attacks::{Attack, ATTACKS};
use memory::Memory;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// How much an attack may make the server grow, in MB: by one attacker, and by twenty.
const MOST_BY_ONE: f64 = 100.0;
const MOST_BY_MANY: f64 = 400.0;
/// How much more memory the server may have than before, in MB, when the attackers are gone: one, and twenty. (Pages in
/// which something is still in use are not given back, nor is the end of each arena: Note [Memory is given back].)
const MOST_AFTER_ONE: f64 = 64.0;
const MOST_AFTER_MANY: f64 = 100.0;
/// When it has so little more, it need not be waited for.
const LITTLE: f64 = 8.0;
/// How many times as much counts as a miss in the short form: other work of a small machine delays attackers and server
/// alike, and the trim that follows the last connection's end. The long form holds the marks themselves.
const SHORT_FORM: f64 = 2.0;
const MANY: usize = 20;
/// How long the server has to give memory back.
const SETTLE: Duration = Duration::from_secs(10);

/// What was asked for.
struct Asked {
    quick: bool,
    /// Only the floods.
    fairness: bool,
    attackers: Vec<usize>,
    names: Vec<String>,
}

fn main() -> Result<ExitCode> {
    let mut asked = Asked { quick: false, fairness: false, attackers: Vec::new(), names: Vec::new() };
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    while let Some(arg) = args.next() {
        match &*arg {
            "server" => return server::serve().map(|()| ExitCode::SUCCESS),
            "crowd" => {
                let (name, address) =
                    (args.next().ok_or("crowd NAME")?, args.next().ok_or("crowd NAME ADDRESS")?);
                return fairness::crowd(&name, address.parse()?).map(|()| ExitCode::SUCCESS);
            }
            "--quick" => asked.quick = true,
            "--fairness" => asked.fairness = true,
            "--attackers" => asked.attackers.push(args.next().ok_or("--attackers N")?.parse()?),
            "--list" => {
                ATTACKS.iter().for_each(|attack| println!("{:<20} {}", attack.name, attack.what));
                return Ok(ExitCode::SUCCESS);
            }
            name if ATTACKS.iter().any(|attack| attack.name == name) => asked.names.push(arg),
            other => return Err(format!("no such attack or option: {other}").into()),
        }
    }
    if asked.attackers.is_empty() {
        asked.attackers = vec![1, MANY];
    }
    run(&asked)
}

fn run(asked: &Asked) -> Result<ExitCode> {
    let mut missed = Vec::new();
    if !asked.fairness {
        attack(asked, &mut missed)?;
    }
    if asked.names.is_empty() {
        let unfair = fairness::run(asked.quick)?;
        // A short form has too few calls for a 99th percentile that says something: it shows that floods are survived.
        match asked.quick {
            true => {
                unfair.iter().for_each(|mark| println!("over a mark (not counted in the short form): {mark}"))
            }
            false => missed.extend(unfair),
        }
    }
    for mark in &missed {
        println!("missed: {mark}");
    }
    println!("{} marks missed", missed.len());
    Ok(if missed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Attacks, and prints.
fn attack(asked: &Asked, missed: &mut Vec<String>) -> Result<()> {
    println!(
        "{:<20} {:>4} {:>8} {:>8} {:>8} {:>9} {:>9} {:>10} {:>9} {:>8}  how it ended",
        "attack",
        "by",
        "held MB",
        "peak MB",
        "after MB",
        "median us",
        "p99 us",
        "messages",
        "sent MB",
        "seconds"
    );
    let wanted = |attack: &&Attack| asked.names.is_empty() || asked.names.iter().any(|n| n == attack.name);
    for attack in ATTACKS.iter().filter(wanted) {
        for &attackers in &asked.attackers {
            let outcome = one(attack, attackers, asked.quick)
                .map_err(|e| format!("{} by {attackers}: {e}", attack.name))?;
            println!(
                "{:<20} {attackers:>4} {:>8.1} {:>8.1} {:>8.1} {:>9.0} {:>9.0} {:>10} {:>9.1} {:>8.1}  {}",
                attack.name,
                outcome.held,
                outcome.peak,
                outcome.after,
                outcome.median,
                outcome.p99,
                outcome.sent.messages,
                outcome.sent.bytes as f64 / 1e6,
                outcome.seconds,
                outcome.sent.endings(),
            );
            let slack = if asked.quick { SHORT_FORM } else { 1.0 };
            let (most, most_after) = match attackers {
                1 => (slack * MOST_BY_ONE, slack * MOST_AFTER_ONE),
                _ => (slack * MOST_BY_MANY, slack * MOST_AFTER_MANY),
            };
            if outcome.peak > most {
                missed.push(format!("{} by {attackers}: {:.1} MB, mark {most}", attack.name, outcome.peak));
            }
            if outcome.after > most_after {
                missed.push(format!(
                    "{} by {attackers}: {:.1} MB when the attackers were gone, mark {most_after}",
                    attack.name, outcome.after
                ));
            }
        }
    }
    Ok(())
}

/// What one attack came to. Memory is in MB, and what the server has grown by.
struct Outcome {
    held: f64,
    peak: f64,
    after: f64,
    median: f64,
    p99: f64,
    sent: raw::Sent,
    seconds: f64,
}

/// Attacks a new server.
fn one(attack: &Attack, attackers: usize, quick: bool) -> Result<Outcome> {
    let server = Server::start()?;
    let polite = polite::Polite::new(server.address)?;
    polite.warm_up()?;
    let memory = Memory::of(server.child.id())?;
    let measured = polite.start();
    let begun = Instant::now();
    let (held, sent, attacking) = std::thread::scope(|scope| -> Result<_> {
        let running: Vec<_> =
            (0..attackers).map(|_| scope.spawn(|| attack.run_one(server.address, quick))).collect();
        let attacking: Vec<_> = running
            .into_iter()
            .map(|one| one.join().map_err(|_| "an attacker panicked")?)
            .collect::<Result<_>>()?;
        let mut sent = raw::Sent::default();
        attacking.iter().for_each(|one| sent.add(&one.sent));
        Ok((memory.grown()?, sent, attacking))
    })?;
    let seconds = begun.elapsed().as_secs_f64();
    let peak = memory.peak()?;
    let felt = measured.stop()?;
    drop(attacking);
    let after = memory.settled_below(LITTLE, SETTLE)?;
    polite.warm_up()?;
    Ok(Outcome { held, peak, after, median: felt.median, p99: felt.p99, sent, seconds })
}

/// A server in a process of its own, which ends with this.
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    fn start() -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("server")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut address = String::new();
        BufReader::new(child.stdout.take().ok_or("its output is piped")?).read_line(&mut address)?;
        Ok(Server { child, address: address.trim().parse()? })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
