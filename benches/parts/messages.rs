//! Messages: between values and bytes, and between bytes and a stream.

use std::io;

use capnp_threads::testing::parts::{decode, Unsent};
use capnp_threads::transport::{Frame, FrameReader, FrameWriter, Outbound};
use capnp_threads::Limits;

use crate::meter::{Part, Run};

const SMALL: &[u8] = &[7; 16];
const LARGE: &[u8] = &[7; 64 << 10];
/// How many messages are measured at once.
const BATCH: u32 = 64;

pub(crate) const PARTS: &[Part] = &[
    Part::new("build and encode a call", || encoding(|| Unsent::call(SMALL))).operations(BATCH),
    Part::new("build and encode a return", || encoding(|| Unsent::results(SMALL))).operations(BATCH),
    Part::new("encode a finish", || encoding(Unsent::finish)).operations(BATCH),
    Part::new("decode a call", || decoding(|| Unsent::call(SMALL))).operations(BATCH),
    Part::new("decode a return", || decoding(|| Unsent::results(SMALL))).operations(BATCH),
    Part::new("decode a finish", || decoding(Unsent::finish)).operations(BATCH),
    Part::new("write 16 B to a stream", || writing(SMALL)).operations(BATCH),
    Part::new("write 64 KiB to a stream", || writing(LARGE)).operations(BATCH),
    Part::new("read 16 B from a stream", || reading(SMALL)).operations(BATCH),
    Part::new("read 64 KiB from a stream", || reading(LARGE)).operations(BATCH),
];

fn encoding(message: fn() -> Unsent) -> Run {
    let mut encoded = Vec::with_capacity(BATCH as usize);
    Box::new(move |meter| {
        meter.measure(|| encoded.extend((0..BATCH).map(|_| encode(message()))));
        encoded.clear();
    })
}

fn decoding(message: fn() -> Unsent) -> Run {
    let limits = Limits::default();
    let stream = stream_of((0..BATCH).map(|_| encode(message())).collect());
    Box::new(move |meter| {
        let frames: Vec<Frame> = frames_of(&stream, &limits).collect();
        let mut decoded = Vec::with_capacity(frames.len());
        meter.measure(|| decoded.extend(frames.into_iter().map(|frame| decode(frame, &limits))));
        assert!(decoded.iter().all(Result::is_ok));
    })
}

fn writing(data: &'static [u8]) -> Run {
    let batch = calls(data);
    let mut writer = FrameWriter::new();
    Box::new(move |meter| meter.measure(|| writer.write_batch(&mut io::sink(), &batch).expect("a sink")))
}

/// Each frame is dropped before the next is read.
fn reading(data: &'static [u8]) -> Run {
    let limits = Limits::default();
    let stream = stream_of(calls(data));
    Box::new(move |meter| {
        let read = meter.measure(|| frames_of(&stream, &limits).count());
        assert_eq!(read, BATCH as usize);
    })
}

fn calls(data: &[u8]) -> Vec<Outbound> {
    (0..BATCH).map(|_| encode(Unsent::call(data))).collect()
}

fn encode(message: Unsent) -> Outbound {
    message.encode().expect("it can be encoded")
}

fn stream_of(messages: Vec<Outbound>) -> Vec<u8> {
    let mut stream = Vec::new();
    FrameWriter::new().write_batch(&mut stream, &messages).expect("memory takes all");
    stream
}

fn frames_of<'a>(stream: &'a [u8], limits: &Limits) -> impl Iterator<Item = Frame> + 'a {
    let mut reader = FrameReader::new(stream, limits);
    std::iter::from_fn(move || reader.next_frame().expect("it was written so"))
}
