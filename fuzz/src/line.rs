//! Two programs, and a line between them that delays messages, flips bits in them, and is cut.

use arbitrary::{Arbitrary, Unstructured};
use capnp::message::ReaderSegments;
use capnp::Word;
use capnp_threads::testing::line::{line as hang, Line};
use capnp_threads::transport::Frame;
use capnp_threads::Threads;

use crate::program::Program;

/// The most that is done in a run.
const MOST: usize = 600;

struct Vat {
    program: Program,
    line: Line,
}

impl Vat {
    fn new(threads: Threads) -> Self {
        let mut hung = None;
        let program = Program::new(|mut options| {
            options.threads = threads;
            let (side, line) = hang(options);
            hung = Some(line);
            side
        });
        Vat { program, line: hung.expect("it was just made") }
    }
}

/// Plays the input: its first byte chooses how the stages of each vat are driven, and whether bits are flipped.
pub fn line(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let how = u8::arbitrary(&mut input).unwrap_or(0);
    let threads = |strict| if strict { Threads::Strict } else { Threads::Lending };
    let mut vats = [Vat::new(threads(how & 1 != 0)), Vat::new(threads(how & 2 != 0))];
    let flips = how & 4 != 0;
    for _ in 0..MOST {
        let Ok([what, a, b]) = <[u8; 3]>::arbitrary(&mut input) else { break };
        if input.is_empty() {
            break;
        }
        let (which, other) = (usize::from(what & 1), usize::from(!what & 1));
        match what >> 1 & 15 {
            0..=4 => vats[which].program.act(a, b, what >> 5 | b << 3),
            5..=8 => drop(vats[which].program.step(a)),
            9 => drop(vats[which].program.settle()),
            10..=13 => {
                for _ in 0..=a % 4 {
                    let Some(message) = vats[which].line.take() else { break };
                    vats[other].line.put(message);
                }
            }
            14 if flips => {
                if let Some(message) = vats[which].line.take() {
                    vats[other].line.put(flipped(&message, a, b));
                }
            }
            15 if a == 1 => vats[which].line.cut(),
            _ if !settle(&mut vats) => break,
            _ => {}
        }
        if !flips {
            let intact = vats.iter().all(|vat| {
                let why = vat.program.side.connection().disconnect_reason();
                why.is_none_or(|why| !is_our_fault(&why.to_string()))
            });
            assert!(intact, "a message of one vat's is a fault to the other: {:?}", reasons(&vats));
        }
    }
    settle(&mut vats);
    vats.iter().for_each(|vat| vat.line.cut());
    assert!(settle(&mut vats), "steps are taken without end although the line is cut");
    for vat in &mut vats {
        vat.program.check_nobody_waits();
        vat.program.check_ended();
    }
}

/// Whether a connection ended for what the peer, which is ours too, has sent.
fn is_our_fault(why: &str) -> bool {
    !(why.contains("closed the connection") || why.contains("sending") || why.contains("nobody uses"))
}

fn reasons(vats: &[Vat; 2]) -> Vec<Option<String>> {
    let reason = |vat: &Vat| vat.program.side.connection().disconnect_reason().map(|why| why.to_string());
    vats.iter().map(reason).collect()
}

/// More rounds than any run takes, but for those with a circle.
const MANY_ROUNDS: usize = 50;

/// Moves all messages and takes all steps until there is nothing to move or take. False if there seems to be no end of it:
/// the programs may have tied promises to a circle through both vats, which neither of them sees (a promise of one vat's
/// becomes what a call in the other returns, and that call is handed on to the promise). A call on it goes round until the
/// line is cut.
fn settle(vats: &mut [Vat; 2]) -> bool {
    for _ in 0..MANY_ROUNDS {
        let mut moved = false;
        for which in 0..2 {
            moved |= vats[which].program.settle();
            while let Some(message) = vats[which].line.take() {
                vats[1 - which].line.put(message);
                moved = true;
            }
        }
        if !moved {
            return true;
        }
    }
    false
}

/// The message with one bit flipped.
fn flipped(message: &Frame, at: u8, bit: u8) -> Frame {
    let segments: Vec<&[u8]> = (0..message.len()).filter_map(|i| message.get_segment(i as u32)).collect();
    let mut bytes = segments.concat();
    let length = bytes.len();
    if length > 0 {
        // Mostly near the beginning, where the message says what it is.
        bytes[usize::from(at) % length] ^= 1 << (bit % 8);
    }
    let mut words = Word::allocate_zeroed_vec(length / 8);
    Word::words_to_bytes_mut(&mut words).copy_from_slice(&bytes);
    Frame::new(words, segments.iter().map(|segment| segment.len() / 8))
}
