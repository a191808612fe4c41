//! The client that measures: so many calls in a given way.

use std::cell::Cell;
use std::future::Future;
use std::time::{Duration, Instant};

use capnp::capability::Response;
use capnp::Error;
use futures::future::try_join_all;
use futures::stream::FuturesOrdered;
use futures::StreamExt;

use crate::bench_capnp::bench;
use crate::check::{next, pushed};
use crate::{connect, object, Result};

/// What only the peer of `capnp-threads` does.
const OURS: [&str; 4] = ["callers", "idle", "outstanding", "exports"];

/// What is measured.
pub(crate) struct Work {
    mode: String,
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
        let inflight = inflight.parse::<usize>()?.max(1);
        let payload = vec![7; bytes.parse()?];
        Ok(Work { mode: mode.to_owned(), count: count.parse()?, inflight, payload })
    }

    pub(crate) async fn run(&self, address: &str) -> Result<()> {
        let bench = &connect(address).await?;
        let payload = &self.payload[..];
        let measured = match &self.mode[..] {
            "latency" | "throughput" => self.in_window(|| echo(bench, payload)).await,
            "pipeline" => {
                let last = || (0..8).fold(bench.clone(), |cap, _| next(&cap));
                self.in_window(|| echo(&last(), payload)).await
            }
            "callback" => self.in_window(|| callback(bench, object::new(), payload)).await,
            "churn" => self.in_window(|| bench.next_request().send().promise).await,
            "stream" => self.streaming(bench).await,
            "conns" => self.over_connections(bench, address).await,
            mode if OURS.contains(&mode) => {
                Err(format!("`{mode}` is about threads and tables: only the peer of capnp-threads has it")
                    .into())
            }
            mode => Err(format!("there is no mode `{mode}`").into()),
        };
        self.print(measured?);
        Ok(())
    }

    /// Some calls before those that are measured.
    async fn warm_up<R, F: Future<Output = capnp::Result<R>>>(&self, issue: impl Fn() -> F) -> Result<()> {
        for _ in 0..(self.count / 10 + 1).min(2000) {
            issue().await?;
        }
        Ok(())
    }

    /// Calls with so many in flight, each waited for in turn.
    async fn in_window<R, F>(&self, issue: impl Fn() -> F) -> Result<Measured>
    where
        F: Future<Output = capnp::Result<R>>,
    {
        self.warm_up(&issue).await?;
        let timed = || {
            let (since, call) = (Instant::now(), issue());
            async move { call.await.map(|_| since.elapsed()) }
        };
        let mut each = Vec::with_capacity(self.count);
        let mut window = FuturesOrdered::new();
        let start = Instant::now();
        for _ in 0..self.count {
            if window.len() == self.inflight {
                each.extend(window.next().await.transpose()?);
            }
            window.push_back(timed());
        }
        while let Some(took) = window.next().await {
            each.push(took?);
        }
        Ok(Measured { elapsed: start.elapsed(), each })
    }

    async fn streaming(&self, bench: &bench::Client) -> Result<Measured> {
        self.warm_up(|| echo(bench, &self.payload)).await?;
        let start = Instant::now();
        for _ in 0..self.count {
            let mut request = bench.push_request();
            request.get().set_data(&self.payload);
            request.send().await?;
        }
        let arrived = pushed(bench).await?;
        let elapsed = start.elapsed();
        let sent = (self.count * self.payload.len()) as u64;
        if arrived != sent {
            return Err(format!("pushed {sent} bytes, of which {arrived} arrived").into());
        }
        Ok(Measured { elapsed, each: Vec::new() })
    }

    /// So many connections, each with one call at a time.
    async fn over_connections(&self, bench: &bench::Client, address: &str) -> Result<Measured> {
        self.warm_up(|| echo(bench, &self.payload)).await?;
        let mut all = Vec::new();
        for _ in 0..self.inflight {
            let bench = connect(address).await?;
            pushed(&bench).await?;
            all.push(bench);
        }
        let left = &Cell::new(self.count);
        let call_while_left = |bench: bench::Client| async move {
            while let Some(others) = left.get().checked_sub(1) {
                left.set(others);
                echo(&bench, &self.payload).await?;
            }
            Ok::<(), Error>(())
        };
        let start = Instant::now();
        try_join_all(all.into_iter().map(call_while_left)).await?;
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
            "{{\"peer\":\"capnp-rpc\",\"mode\":\"{mode}\",\"count\":{count},\"inflight\":{inflight},\
             \"bytes\":{bytes},\"seconds\":{seconds:.3},\"per_second\":{:.0},\"mb_per_second\":{:.1},\
             \"p50_us\":{:.1},\"p99_us\":{:.1}}}",
            *count as f64 / seconds,
            (count * bytes) as f64 / seconds / 1e6,
            at(50),
            at(99),
        );
    }
}

/// What the server's object makes of `data`. The call is made at once.
pub(crate) fn echo(
    bench: &bench::Client,
    data: &[u8],
) -> impl Future<Output = capnp::Result<Response<bench::echo_results::Owned>>> {
    let mut request = bench.echo_request();
    request.get().set_data(data);
    request.send().promise
}

/// What `target` makes of `data` for the server. The call is made at once.
pub(crate) fn callback(
    bench: &bench::Client,
    target: bench::Client,
    data: &[u8],
) -> impl Future<Output = capnp::Result<Response<bench::callback_results::Owned>>> {
    let mut request = bench.callback_request();
    request.get().set_target(target);
    request.get().set_data(data);
    request.send().promise
}
