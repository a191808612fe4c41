//! The client that measures: so many calls in a given way.

use std::cell::Cell;
use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use capnp_threads::{Capability, Connection, Pool, RemotePromise, Stream};

use crate::generated::bench_capnp::bench;
use crate::server::{callback, room, Bench};
use crate::setup::Setup;
use crate::Result;

/// How the calls are made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Latency,
    Throughput,
    Pipeline,
    Callback,
    Churn,
    Stream,
    Conns,
    Callers,
    Outstanding,
    Exports,
}

impl Mode {
    const ALL: [(&'static str, Mode); 10] = [
        ("latency", Mode::Latency),
        ("throughput", Mode::Throughput),
        ("pipeline", Mode::Pipeline),
        ("callback", Mode::Callback),
        ("churn", Mode::Churn),
        ("stream", Mode::Stream),
        ("conns", Mode::Conns),
        ("callers", Mode::Callers),
        ("outstanding", Mode::Outstanding),
        ("exports", Mode::Exports),
    ];
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, _) = Mode::ALL.iter().find(|(_, mode)| mode == self).expect("all modes have a name");
        f.write_str(name)
    }
}

/// What is measured.
pub(crate) struct Work {
    mode: Mode,
    count: usize,
    inflight: usize,
    payload: Vec<u8>,
    /// How many calls or objects there are meanwhile.
    held: usize,
}

/// What came out.
struct Measured {
    elapsed: Duration,
    /// How long each call took, where calls are timed.
    each: Vec<Duration>,
}

impl Work {
    pub(crate) fn parse(mode: &str, count: &str, inflight: &str, bytes: &str, held: &str) -> Result<Self> {
        let known = Mode::ALL.iter().find(|(name, _)| *name == mode);
        let (_, mode) = known.ok_or_else(|| format!("there is no mode `{mode}`"))?;
        let payload = vec![7; bytes.parse()?];
        let (count, inflight, held) = (count.parse()?, inflight.parse()?, held.parse()?);
        Ok(Work { mode: *mode, count, inflight, payload, held })
    }

    pub(crate) fn run(&self, mut setup: Setup, address: &str) -> Result<()> {
        setup.limits.questions += self.held;
        let connection = setup.vat().connect(address)?;
        let bench: bench::Client = connection.bootstrap();
        let measured = match self.mode {
            Mode::Latency | Mode::Throughput => self.in_window(|| self.echo(&bench))?,
            Mode::Pipeline => self.in_window(|| {
                let last = (0..8).fold(bench.clone(), |cap, _| cap.next().pipeline.get().get_next());
                self.echo(&last)
            })?,
            Mode::Callback => self.in_window(|| {
                let ours = bench::Client::with_pool(Bench::default(), Pool::in_place());
                callback(&bench, ours, &self.payload)
            })?,
            Mode::Churn => self.in_window(|| bench.next())?,
            Mode::Stream => self.streaming(&bench)?,
            Mode::Conns => self.over_connections(&bench, &setup, address)?,
            Mode::Callers => {
                self.warm_up(|| self.echo(&bench))?;
                self.by_threads(std::iter::repeat_n(&bench, self.inflight))?
            }
            Mode::Outstanding => self.beside_questions(&bench)?,
            Mode::Exports => self.beside_exports(&bench)?,
        };
        self.print(measured);
        Ok(())
    }

    fn echo(&self, bench: &bench::Client) -> RemotePromise<bench::echo_results::Owned> {
        let mut request = bench.echo_request();
        request.get_sized(room(self.payload.len(), 0)).set_data(&self.payload);
        request.send()
    }

    /// Some calls before those that are measured.
    fn warm_up<R: 'static>(&self, issue: impl Fn() -> RemotePromise<R>) -> Result<()> {
        for _ in 0..(self.count / 10 + 1).min(2000) {
            issue().wait()?;
        }
        Ok(())
    }

    /// Calls with so many in flight, each waited for in turn.
    fn in_window<R: 'static>(&self, issue: impl Fn() -> RemotePromise<R>) -> Result<Measured> {
        self.warm_up(&issue)?;
        let mut each = Vec::with_capacity(self.count);
        let mut window: VecDeque<(Instant, RemotePromise<R>)> = VecDeque::with_capacity(self.inflight);
        let mut wait_for_first = |window: &mut VecDeque<(Instant, RemotePromise<R>)>| -> Result<()> {
            if let Some((since, call)) = window.pop_front() {
                call.wait()?;
                each.push(since.elapsed());
            }
            Ok(())
        };
        let start = Instant::now();
        for _ in 0..self.count {
            if window.len() >= self.inflight.max(1) {
                wait_for_first(&mut window)?;
            }
            window.push_back((Instant::now(), issue()));
        }
        while !window.is_empty() {
            wait_for_first(&mut window)?;
        }
        Ok(Measured { elapsed: start.elapsed(), each })
    }

    fn streaming(&self, bench: &bench::Client) -> Result<Measured> {
        self.warm_up(|| self.echo(bench))?;
        let start = Instant::now();
        let stream = Stream::new();
        for _ in 0..self.count {
            let mut request = bench.push_request();
            request.get_sized(room(self.payload.len(), 0)).set_data(&self.payload);
            request.send(&stream)?;
        }
        let pushed = bench.pushed().wait()?.get()?.get_bytes();
        let sent = (self.count * self.payload.len()) as u64;
        let elapsed = start.elapsed();
        if pushed != sent {
            return Err(format!("pushed {sent} bytes, of which {pushed} arrived").into());
        }
        Ok(Measured { elapsed, each: Vec::new() })
    }

    fn over_connections(&self, bench: &bench::Client, setup: &Setup, address: &str) -> Result<Measured> {
        self.warm_up(|| self.echo(bench))?;
        let all = (0..self.inflight).map(|_| open(setup, address)).collect::<Result<Vec<_>>>()?;
        self.by_threads(all.iter().map(|(_, bench)| bench))
    }

    /// A thread for each of the clients, which makes one call at a time while any are left to make.
    fn by_threads<'a>(&self, clients: impl Iterator<Item = &'a bench::Client>) -> Result<Measured> {
        let left = AtomicI64::new(self.count as i64);
        let call_while_left = |bench: &bench::Client| {
            let mut each = Vec::new();
            while left.fetch_sub(1, Ordering::Relaxed) > 0 {
                let since = Instant::now();
                self.echo(bench).wait()?;
                each.push(since.elapsed());
            }
            Ok::<_, capnp_threads::Error>(each)
        };
        let start = Instant::now();
        let each = std::thread::scope(|scope| {
            let threads: Vec<_> = clients.map(|bench| scope.spawn(move || call_while_left(bench))).collect();
            let joined = threads.into_iter().map(|thread| thread.join().expect("the thread does not panic"));
            joined.collect::<std::result::Result<Vec<_>, _>>()
        })?;
        Ok(Measured { elapsed: start.elapsed(), each: each.concat() })
    }

    /// Echo calls while others are waiting for answers that never come.
    fn beside_questions(&self, bench: &bench::Client) -> Result<Measured> {
        let _hanging: Vec<_> = (0..self.held).map(|_| bench.hang()).collect();
        self.in_window(|| self.echo(bench))
    }

    /// Calls on one after the other of the objects that the server has exported to us. Each makes it export one
    /// more, which is given back.
    fn beside_exports(&self, bench: &bench::Client) -> Result<Measured> {
        let next = || -> Result<bench::Client> { Ok(bench.next().wait()?.get()?.get_next()?) };
        let objects = (0..self.held.max(1)).map(|_| next()).collect::<Result<Vec<_>>>()?;
        let turn = Cell::new(0);
        self.in_window(|| {
            turn.set((turn.get() + STRIDE) % objects.len());
            objects[turn.get()].next()
        })
    }

    fn print(&self, measured: Measured) {
        let Measured { elapsed, mut each } = measured;
        each.sort_unstable();
        let at = |percent: usize| {
            each.get(each.len() * percent / 100).map_or(0.0, |took| took.as_nanos() as f64 / 1e3)
        };
        let Work { mode, count, inflight, payload, held } = self;
        let (seconds, bytes) = (elapsed.as_secs_f64(), payload.len());
        println!(
            "{{\"peer\":\"capnp-threads\",\"mode\":\"{mode}\",\"count\":{count},\"inflight\":{inflight},\
             \"bytes\":{bytes},\"held\":{held},\"seconds\":{seconds:.3},\"per_second\":{:.0},\"mb_per_second\":{:.1},\
             \"p50_us\":{:.1},\"p99_us\":{:.1}}}",
            *count as f64 / seconds,
            (count * bytes) as f64 / seconds / 1e6,
            at(50),
            at(99),
        );
    }
}

/// From one object to the next of those that are called in turn: neighbours in a table are far apart in time.
const STRIDE: usize = 7919;

/// A connection that has been used.
pub(crate) fn open(setup: &Setup, address: &str) -> Result<(Connection, bench::Client)> {
    let connection = setup.vat().connect(address)?;
    let bench: bench::Client = connection.bootstrap();
    bench.pushed().wait()?;
    Ok((connection, bench))
}
