//! The client that measures: so many calls in a given way.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use capnp_threads::{Capability, Connection, Pool, RemotePromise, Stream, Vat};

use crate::check::callback;
use crate::generated::bench_capnp::bench;
use crate::server::{room, Bench};
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
}

impl Mode {
    const ALL: [(&'static str, Mode); 7] = [
        ("latency", Mode::Latency),
        ("throughput", Mode::Throughput),
        ("pipeline", Mode::Pipeline),
        ("callback", Mode::Callback),
        ("churn", Mode::Churn),
        ("stream", Mode::Stream),
        ("conns", Mode::Conns),
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
}

/// What came out.
struct Measured {
    elapsed: Duration,
    /// How long each call took, where calls are timed.
    each: Vec<Duration>,
}

impl Work {
    pub(crate) fn parse(mode: &str, count: &str, inflight: &str, bytes: &str) -> Result<Self> {
        let known = Mode::ALL.iter().find(|(name, _)| *name == mode);
        let (_, mode) = known.ok_or_else(|| format!("there is no mode `{mode}`"))?;
        let payload = vec![7; bytes.parse()?];
        Ok(Work { mode: *mode, count: count.parse()?, inflight: inflight.parse()?, payload })
    }

    pub(crate) fn run(&self, address: &str) -> Result<()> {
        let connection = Vat::new().connect(address)?;
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
            Mode::Conns => self.over_connections(&bench, address)?,
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

    fn over_connections(&self, bench: &bench::Client, address: &str) -> Result<Measured> {
        self.warm_up(|| self.echo(bench))?;
        let open = || -> Result<(Connection, bench::Client)> {
            let connection = Vat::new().connect(address)?;
            let bench: bench::Client = connection.bootstrap();
            bench.pushed().wait()?;
            Ok((connection, bench))
        };
        let all = (0..self.inflight).map(|_| open()).collect::<Result<Vec<_>>>()?;
        let left = AtomicI64::new(self.count as i64);
        let call_while_left = |bench: &bench::Client| {
            while left.fetch_sub(1, Ordering::Relaxed) > 0 {
                self.echo(bench).wait()?;
            }
            Ok::<(), capnp_threads::Error>(())
        };
        let start = Instant::now();
        std::thread::scope(|scope| {
            let threads: Vec<_> =
                all.iter().map(|(_, bench)| scope.spawn(|| call_while_left(bench))).collect();
            threads.into_iter().try_for_each(|thread| thread.join().expect("the thread does not panic"))
        })?;
        Ok(Measured { elapsed: start.elapsed(), each: Vec::new() })
    }

    fn print(&self, measured: Measured) {
        let Measured { elapsed, mut each } = measured;
        each.sort_unstable();
        let at = |percent: usize| {
            each.get(each.len() * percent / 100).map_or(0.0, |took| took.as_nanos() as f64 / 1e3)
        };
        let Work { mode, count, inflight, payload } = self;
        let (seconds, bytes) = (elapsed.as_secs_f64(), payload.len());
        println!(
            "{{\"peer\":\"capnp-threads\",\"mode\":\"{mode}\",\"count\":{count},\"inflight\":{inflight},\
             \"bytes\":{bytes},\"seconds\":{seconds:.3},\"per_second\":{:.0},\"mb_per_second\":{:.1},\
             \"p50_us\":{:.1},\"p99_us\":{:.1}}}",
            *count as f64 / seconds,
            (count * bytes) as f64 / seconds / 1e6,
            at(50),
            at(99),
        );
    }
}
