//! A hostile peer that sends any messages, and a program that does anything meanwhile.

use arbitrary::{Arbitrary, Result, Unstructured};
use capnp_threads::testing::line::{copy, line};
use capnp_threads::Threads;

use crate::message::{Call, Cap, Context, Msg, Outcome, Payload, Return, Target};
use crate::program::Program;

/// IDs are few, so that messages meet.
const IDS: u32 = 6;
/// The most that is done in a run.
const MOST: usize = 400;

/// Plays the input: its first byte chooses how the stages are driven.
pub fn sequence(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let strict = bool::arbitrary(&mut input).unwrap_or(false);
    let mut hung = None;
    let mut program = Program::new(|mut options| {
        options.threads = if strict { Threads::Strict } else { Threads::Lending };
        let (side, line) = line(options);
        hung = Some(line);
        side
    });
    let line = hung.expect("it was just made");
    for _ in 0..MOST {
        match event(&mut input) {
            Ok(Event::Message(message)) => line.put(copy(&message.encode())),
            Ok(Event::Act(what, a, b)) => program.act(what, a, b),
            Ok(Event::Step(which)) => drop(program.step(which)),
            Ok(Event::Settle) => drop(program.settle()),
            Err(_) => break,
        }
        while line.take().is_some() {}
    }
    program.settle();
    line.cut();
    program.settle();
    program.check_nobody_waits();
    program.check_ended();
}

enum Event {
    Message(Msg),
    Act(u8, u8, u8),
    Step(u8),
    Settle,
}

fn event(input: &mut Unstructured<'_>) -> Result<Event> {
    if input.is_empty() {
        return Err(arbitrary::Error::NotEnoughData);
    }
    Ok(match input.int_in_range(0..=9)? {
        0..=4 => Event::Message(message(input, 0)?),
        5 | 6 => Event::Act(input.arbitrary()?, input.arbitrary()?, input.arbitrary()?),
        7 => Event::Step(input.arbitrary()?),
        _ => Event::Settle,
    })
}

fn id(input: &mut Unstructured<'_>) -> Result<u32> {
    Ok(match input.int_in_range(0..=IDS + 1)? {
        id if id < IDS => id,
        IDS => 1 << 31,
        _ => u32::MAX,
    })
}

fn path(input: &mut Unstructured<'_>) -> Result<Vec<u16>> {
    let length = input.int_in_range(0..=3)?;
    (0..length).map(|_| input.int_in_range(0..=4)).collect()
}

fn target(input: &mut Unstructured<'_>) -> Result<Target> {
    Ok(match input.arbitrary()? {
        true => Target::Import(id(input)?),
        false => Target::Answer(id(input)?, path(input)?),
    })
}

fn cap(input: &mut Unstructured<'_>) -> Result<Cap> {
    Ok(match input.int_in_range(0..=5)? {
        0 => Cap::None,
        1 => Cap::Hosted(id(input)?),
        2 => Cap::Promise(id(input)?),
        3 => Cap::Yours(id(input)?),
        4 => Cap::YourAnswer(id(input)?, path(input)?),
        _ => Cap::Third { vine: id(input)? },
    })
}

fn payload(input: &mut Unstructured<'_>) -> Result<Payload> {
    let caps = input.int_in_range(0..=3)?;
    let caps = (0..caps).map(|_| cap(input)).collect::<Result<Vec<_>>>()?;
    let bare = caps.len() == 1 && input.arbitrary()?;
    Ok(Payload { tag: 5, caps, bare })
}

fn message(input: &mut Unstructured<'_>, depth: u32) -> Result<Msg> {
    Ok(match input.int_in_range(0..=19)? {
        0 if depth < 2 => Msg::Unimplemented(Box::new(message(input, depth + 1)?)),
        0 | 1 => Msg::Bootstrap(id(input)?),
        // Rare: it ends the run.
        2 if u8::arbitrary(input)? == 7 => Msg::Abort("enough".into()),
        2..=8 => Msg::Call(Call {
            question: id(input)?,
            target: target(input)?,
            interface: 1,
            method: u16::from(u8::arbitrary(input)?),
            params: payload(input)?,
            yourself: input.ratio(1, 4)?,
            no_pipelining: input.ratio(1, 8)?,
            only_pipeline: input.ratio(1, 8)?,
        }),
        9..=11 => Msg::Return(Return {
            answer: id(input)?,
            release_params: input.arbitrary()?,
            no_finish: input.ratio(1, 8)?,
            outcome: match input.int_in_range(0..=5)? {
                0..=2 => Outcome::Results(payload(input)?),
                3 => Outcome::Exception("no".into()),
                4 => match input.arbitrary()? {
                    true => Outcome::Canceled,
                    false => Outcome::Elsewhere,
                },
                _ => Outcome::Take(id(input)?),
            },
        }),
        12..=14 => {
            Msg::Finish { question: id(input)?, release: input.arbitrary()?, workaround: input.arbitrary()? }
        }
        15 | 16 => Msg::Resolve {
            promise: id(input)?,
            to: if input.ratio(1, 5)? { Err("broken".into()) } else { Ok(cap(input)?) },
        },
        17 => Msg::Release { id: id(input)?, count: input.int_in_range(0..=3)? },
        _ => Msg::Disembargo {
            target: target(input)?,
            context: if input.arbitrary()? {
                Context::Sender(id(input)?)
            } else {
                Context::Receiver(id(input)?)
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    /// Writes one message of each kind, and a stream of all, as first inputs of `message` and `frames`.
    #[test]
    #[ignore = "writes into the corpus: for when the messages change"]
    fn write_first_inputs() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
        let cap = Cap::YourAnswer(1, vec![2, 0]);
        let params =
            Payload { tag: 7, caps: vec![Cap::Hosted(3), Cap::Promise(4), cap.clone()], bare: false };
        let ret =
            |outcome| Msg::Return(Return { answer: 1, release_params: true, no_finish: false, outcome });
        let call = |target, yourself| {
            Msg::Call(Call {
                question: 1,
                target,
                interface: 1,
                method: 2,
                params: params.clone(),
                yourself,
                no_pipelining: false,
                only_pipeline: yourself,
            })
        };
        let messages = [
            ("bootstrap", Msg::Bootstrap(1)),
            ("call", call(Target::Import(2), false)),
            ("call_ahead", call(Target::Answer(2, vec![0, 1]), true)),
            ("results", ret(Outcome::Results(params.clone()))),
            ("exception", ret(Outcome::Exception("no".into()))),
            ("take", ret(Outcome::Take(4))),
            ("finish", Msg::Finish { question: 1, release: true, workaround: false }),
            ("release", Msg::Release { id: 1, count: 2 }),
            ("resolve", Msg::Resolve { promise: 1, to: Ok(cap) }),
            ("disembargo", Msg::Disembargo { target: Target::Import(1), context: Context::Sender(2) }),
            ("unimplemented", Msg::Unimplemented(Box::new(Msg::Bootstrap(9)))),
            ("abort", Msg::Abort("enough".into())),
        ];
        // No plan of reads, then the stream.
        let mut stream = vec![0];
        for (name, message) in messages {
            let segments: Vec<Vec<u8>> =
                message.encode().with_segments(|segments| segments.iter().map(|s| s.to_vec()).collect());
            stream.extend((segments.len() as u32 - 1).to_le_bytes());
            segments.iter().for_each(|segment| stream.extend((segment.len() as u32 / 8).to_le_bytes()));
            stream.resize((stream.len() - 1).next_multiple_of(8) + 1, 0);
            stream.extend(segments.concat());
            fs::write(corpus.join("message").join(name), segments.concat()).unwrap();
        }
        fs::write(corpus.join("frames").join("all_kinds"), stream).unwrap();
    }
}
