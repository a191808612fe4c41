//! What the machine takes for the same bytes: blocking threads and sockets, with no protocol and nothing built or read.
//!
//! No implementation that has a blocking thread on each side can be faster, unless it polls or sends fewer bytes.
//!
//! ```text
//! bare-peer server ADDRESS                              prints `listening PORT`, and serves until it is killed
//! bare-peer client ADDRESS MODE COUNT INFLIGHT BYTES    `latency`, `throughput`, `conns` and `stream`
//! ```

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

/// What a call and its answer are longer than the data that they bring.
const CALL: usize = 120;
const ANSWER: usize = 80;

fn main() -> io::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["server", address] => serve(address),
        ["client", address, mode, count, inflight, bytes] => {
            let work =
                Work { address, count: number(count), inflight: number(inflight), bytes: number(bytes) };
            work.run(mode)
        }
        _ => Err(io::Error::other(
            "usage: bare-peer server ADDRESS | client ADDRESS MODE COUNT INFLIGHT BYTES",
        )),
    }
}

fn number(text: &str) -> usize {
    text.parse().expect("a number")
}

/// A thread for each connection. The client says first how long its calls and their answers are; without answers, the
/// end of its calls is answered with a byte.
fn serve(address: &str) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    println!("listening {}", listener.local_addr()?.port());
    for stream in listener.incoming() {
        let stream = stream?;
        stream.set_nodelay(true)?;
        std::thread::spawn(move || answer(stream));
    }
    Ok(())
}

fn answer(mut stream: TcpStream) -> io::Result<()> {
    let (call, answer) = (read_number(&mut stream)?, read_number(&mut stream)?);
    let mut buffer = vec![0; call.max(1 << 14)];
    let answers = vec![0; answer * (buffer.len() / call + 1)];
    let mut there = 0;
    loop {
        let n = stream.read(&mut buffer[there..])?;
        if n == 0 {
            return if answer == 0 { stream.write_all(&[0]) } else { Ok(()) };
        }
        there += n;
        stream.write_all(&answers[..there / call * answer])?;
        let rest = there % call;
        buffer.copy_within(there - rest..there, 0);
        there = rest;
    }
}

fn read_number(stream: &mut TcpStream) -> io::Result<usize> {
    let mut bytes = [0; 8];
    stream.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes) as usize)
}

struct Work<'a> {
    address: &'a str,
    count: usize,
    inflight: usize,
    bytes: usize,
}

impl Work<'_> {
    fn run(&self, mode: &str) -> io::Result<()> {
        let start = Instant::now();
        let each = match mode {
            "latency" => self.calls(&mut self.connect(ANSWER + self.bytes)?, 1)?,
            "throughput" => self.calls(&mut self.connect(ANSWER + self.bytes)?, self.inflight)?,
            "conns" => self.over_connections()?,
            "stream" => self.stream()?,
            _ => return Err(io::Error::other(format!("nothing is known of mode {mode} without a protocol"))),
        };
        self.print(mode, start.elapsed(), each);
        Ok(())
    }

    fn connect(&self, answer: usize) -> io::Result<TcpStream> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_nodelay(true)?;
        stream.write_all(&((CALL + self.bytes) as u64).to_le_bytes())?;
        stream.write_all(&(answer as u64).to_le_bytes())?;
        Ok(stream)
    }

    /// So many calls at once go out in one write, and all their answers are waited for.
    fn calls(&self, stream: &mut TcpStream, at_once: usize) -> io::Result<Vec<Duration>> {
        let calls = vec![0; at_once * (CALL + self.bytes)];
        let mut answers = vec![0; at_once * (ANSWER + self.bytes)];
        let round = || {
            let since = Instant::now();
            stream.write_all(&calls)?;
            stream.read_exact(&mut answers)?;
            Ok(since.elapsed())
        };
        std::iter::repeat_with(round).take(self.count.div_ceil(at_once)).collect()
    }

    fn over_connections(&self) -> io::Result<Vec<Duration>> {
        let left = AtomicI64::new(self.count as i64);
        let call_while_left = |mut stream: TcpStream| -> io::Result<Vec<Duration>> {
            let one = Work { count: 1, ..*self };
            let mut each = Vec::new();
            while left.fetch_sub(1, Ordering::Relaxed) > 0 {
                each.append(&mut one.calls(&mut stream, 1)?);
            }
            Ok(each)
        };
        let streams = (0..self.inflight).map(|_| self.connect(ANSWER + self.bytes));
        let streams = streams.collect::<io::Result<Vec<_>>>()?;
        let each = std::thread::scope(|scope| {
            let spawned = streams.into_iter().map(|stream| scope.spawn(|| call_while_left(stream)));
            let threads: Vec<_> = spawned.collect();
            let joined = threads.into_iter().map(|thread| thread.join().expect("the thread does not panic"));
            joined.collect::<io::Result<Vec<_>>>()
        })?;
        Ok(each.concat())
    }

    fn stream(&self) -> io::Result<Vec<Duration>> {
        let mut stream = self.connect(0)?;
        let call = vec![0; CALL + self.bytes];
        for _ in 0..self.count {
            stream.write_all(&call)?;
        }
        stream.shutdown(std::net::Shutdown::Write)?;
        stream.read_exact(&mut [0])?;
        Ok(Vec::new())
    }

    fn print(&self, mode: &str, elapsed: Duration, mut each: Vec<Duration>) {
        each.sort_unstable();
        let at = |percent: usize| {
            each.get(each.len() * percent / 100).map_or(0.0, |took| took.as_nanos() as f64 / 1e3)
        };
        let seconds = elapsed.as_secs_f64();
        let Work { count, inflight, bytes, .. } = self;
        println!(
            "{{\"peer\":\"bare\",\"mode\":\"{mode}\",\"count\":{count},\"inflight\":{inflight},\"bytes\":{bytes},\
             \"seconds\":{seconds:.3},\"per_second\":{:.0},\"mb_per_second\":{:.1},\"p50_us\":{:.1},\"p99_us\":{:.1}}}",
            *count as f64 / seconds,
            (count * bytes) as f64 / seconds / 1e6,
            at(50),
            at(99),
        );
    }
}
