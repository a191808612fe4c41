//! Content without its schema, in one line.
//!
//! A struct is `(data | pointers)`, its data as words in hexadecimal; a list is `[...]`, of bytes `0x...`
//! or, where they are one, a text; a capability is `cap` and its place in the message's table.

use std::fmt::Write;

/// After this many characters the rest is left out.
const SHOWN: usize = 4096;
/// How deep pointers are followed.
const DEPTH: u32 = 64;

/// Shows what the pointer at the end of `path` points to. The path begins in the struct that the union of a
/// `Message` points to, and each step is the number of a pointer.
pub(super) fn show(segments: &[&[u8]], path: &[usize]) -> String {
    let mut show = Show { segments, text: String::new() };
    let place =
        std::iter::once(&0).chain(path).try_fold(Place { segment: 0, word: 0 }, |at, field| {
            match show.target(at)? {
                Target::Struct { at, data, pointers } if *field < pointers => Some(at.after(data + field)),
                _ => None,
            }
        });
    if place.and_then(|at| show.pointer(at, 0)).is_none() {
        show.text += "...";
    }
    show.text
}

/// A word of a message.
#[derive(Clone, Copy)]
struct Place {
    segment: usize,
    word: usize,
}

impl Place {
    fn after(self, words: usize) -> Place {
        Place { word: self.word.saturating_add(words), ..self }
    }
}

/// What a pointer points to, as the pointer says.
#[derive(Clone, Copy)]
enum Target {
    Null,
    Struct { at: Place, data: usize, pointers: usize },
    List { at: Place, element: u64, count: usize },
    Capability(u32),
}

/// Shows until the text is long enough, or something is wrong: then `None`.
struct Show<'a> {
    segments: &'a [&'a [u8]],
    text: String,
}

impl<'a> Show<'a> {
    fn pointer(&mut self, at: Place, depth: u32) -> Option<()> {
        if depth > DEPTH || self.text.len() > SHOWN {
            return None;
        }
        match self.target(at)? {
            Target::Null => self.text += "null",
            Target::Capability(index) => write!(self.text, "cap {index}").ok()?,
            Target::Struct { at, data, pointers } => self.structure(at, data, pointers, depth)?,
            Target::List { at, element: 7, .. } => self.composite(at, depth)?,
            Target::List { at, element: 6, count } => {
                self.text.push('[');
                self.separated(count, |show, i| show.pointer(at.after(i), depth + 1))?;
                self.text.push(']');
            }
            Target::List { at, element: 2, count } => self.bytes(at, count)?,
            Target::List { at, element, count } => self.numbers(at, element, count)?,
        }
        Some(())
    }

    fn structure(&mut self, at: Place, data: usize, pointers: usize, depth: u32) -> Option<()> {
        self.text.push('(');
        self.separated(data, |show, i| {
            let word = show.word(at.after(i))?;
            write!(show.text, "{word:#x}").ok()
        })?;
        if pointers > 0 {
            self.text += if data > 0 { " | " } else { "| " };
            self.separated(pointers, |show, i| show.pointer(at.after(data + i), depth + 1))?;
        }
        self.text.push(')');
        Some(())
    }

    /// A list of structs, which begins with a word of their number and size.
    fn composite(&mut self, at: Place, depth: u32) -> Option<()> {
        let tag = self.word(at)?;
        let (data, pointers) = struct_size(tag);
        let count = (tag as u32 >> 2) as usize;
        let first = at.after(1);
        self.text.push('[');
        self.separated(count, |show, i| {
            let at = first.after(i.checked_mul(data + pointers)?);
            show.structure(at, data, pointers, depth + 1)
        })?;
        self.text.push(']');
        Some(())
    }

    fn bytes(&mut self, at: Place, count: usize) -> Option<()> {
        let bytes = self.raw(at, count)?;
        match bytes.split_last() {
            Some((0, text)) if std::str::from_utf8(text).is_ok_and(|t| !t.contains('\0')) => {
                let text = String::from_utf8_lossy(&text[..text.len().min(SHOWN)]);
                write!(self.text, "{text:?}").ok()
            }
            _ => {
                self.text += "0x";
                bytes.iter().take(SHOWN / 2).try_for_each(|b| write!(self.text, "{b:02x}").ok())
            }
        }
    }

    /// A list of numbers, or of bits, eight to a number.
    fn numbers(&mut self, at: Place, element: u64, count: usize) -> Option<()> {
        let (width, count) = match element {
            0 => return write!(self.text, "[{count} times nothing]").ok(),
            1 => (1, count.div_ceil(8)),
            3 => (2, count),
            4 => (4, count),
            _ => (8, count),
        };
        let bytes = self.raw(at, count.checked_mul(width)?)?;
        self.text.push('[');
        self.separated(count, |show, i| {
            let element = &bytes[i * width..][..width];
            let number = element.iter().rev().fold(0u64, |n, b| n << 8 | u64::from(*b));
            write!(show.text, "{number:#x}").ok()
        })?;
        self.text.push(']');
        Some(())
    }

    fn separated(&mut self, count: usize, mut one: impl FnMut(&mut Self, usize) -> Option<()>) -> Option<()> {
        for i in 0..count {
            if self.text.len() > SHOWN {
                return None;
            }
            if i > 0 {
                self.text += ", ";
            }
            one(self, i)?;
        }
        Some(())
    }

    /// Follows a pointer, through another segment if need be.
    fn target(&self, at: Place) -> Option<Target> {
        let pointer = self.word(at)?;
        if pointer & 3 != 2 {
            return near(pointer, at);
        }
        let landing = Place { segment: (pointer >> 32) as usize, word: (pointer as u32 >> 3) as usize };
        let pad = self.word(landing)?;
        if pointer & 4 == 0 {
            return if pad & 3 == 2 { None } else { near(pad, landing) };
        }
        // The landing pad is two words: where the object is, and what it is.
        let object = Place { segment: (pad >> 32) as usize, word: (pad as u32 >> 3) as usize };
        object_at(self.word(landing.after(1))?, object)
    }

    fn word(&self, at: Place) -> Option<u64> {
        Some(u64::from_le_bytes(self.raw(at, 8)?.try_into().ok()?))
    }

    fn raw(&self, at: Place, bytes: usize) -> Option<&'a [u8]> {
        let start = at.word.checked_mul(8)?;
        self.segments.get(at.segment)?.get(start..start.checked_add(bytes)?)
    }
}

/// What a pointer that leads nowhere but into its own segment points to.
fn near(pointer: u64, at: Place) -> Option<Target> {
    if pointer == 0 {
        return Some(Target::Null);
    }
    if pointer & 3 == 3 {
        return Some(Target::Capability((pointer >> 32) as u32));
    }
    let offset = (pointer as u32 as i32) >> 2;
    let word = (at.word as isize).checked_add(1 + offset as isize)?;
    object_at(pointer, Place { word: usize::try_from(word).ok()?, ..at })
}

fn object_at(pointer: u64, at: Place) -> Option<Target> {
    match pointer & 3 {
        0 => {
            let (data, pointers) = struct_size(pointer);
            Some(Target::Struct { at, data, pointers })
        }
        1 => Some(Target::List { at, element: pointer >> 32 & 7, count: (pointer >> 35) as usize }),
        _ => None,
    }
}

fn struct_size(pointer: u64) -> (usize, usize) {
    ((pointer >> 32 & 0xffff) as usize, (pointer >> 48) as usize)
}

#[cfg(all(test, not(any(shuttle, loom))))]
mod tests {
    use capnp::message::{Builder, HeapAllocator};

    use super::*;
    use crate::generated::rpc_capnp::{exception, message};

    /// The content of a call, for which an exception stands in, as it has a bit of everything.
    fn shown(first_segment: u32, fill: impl FnOnce(exception::Builder<'_>)) -> String {
        let mut built = Builder::new(HeapAllocator::new().first_segment_words(first_segment));
        let call = built.init_root::<message::Builder<'_>>().init_call();
        fill(call.init_params().get_content().init_as());
        show(&built.get_segments_for_output(), &[1, 0])
    }

    fn exception(mut e: exception::Builder<'_>) {
        e.set_reason("it \"broke\"");
        e.set_type(exception::Type::Overloaded);
        let mut details = e.init_details(2);
        details.reborrow().get(0).set_detail_id(0xabc);
        details.get(1).set_data(&[1, 2, 0xff]);
    }

    #[test]
    fn shows_structs_lists_and_texts() {
        let pointers = r#""it \"broke\"", null, [(0xabc | null), (0x0 | 0x0102ff)]"#;
        assert_eq!(shown(1000, exception), format!("(0x100000000 | {pointers})"));
    }

    #[test]
    fn far_pointers_are_followed() {
        for first_segment in 1..30 {
            assert_eq!(shown(first_segment, exception), shown(1000, exception));
        }
    }

    #[test]
    fn much_content_is_cut() {
        let found = shown(1000, |e| e.init_details(10_000).get(0).set_detail_id(1));
        assert!(found.ends_with("...") && found.len() < SHOWN + 100);
        let found = shown(1000, |mut e| e.set_reason("a".repeat(10_000)));
        assert!(found.len() < SHOWN + 100);
    }

    #[test]
    fn nonsense_ends_it() {
        assert_eq!(show(&[], &[]), "...");
        assert_eq!(show(&[&[0xff; 64]], &[0]), "...");
        let onto_itself = 0x0001_0000_ffff_fffcu64.to_le_bytes();
        assert!(show(&[&onto_itself], &[]).ends_with("..."));
    }
}
