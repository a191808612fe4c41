//! Content without its schema, in one line.
//!
//! A struct is `(data | pointers)`, its data as words in hexadecimal; a list is `[...]`, of bytes `0x...`
//! or, where they are one, a text; a capability is `cap` and its place in the message's table.

use std::fmt::Write;

use crate::wire::pointer::{follow, word_in, ElementSize, Pointee, Pointer, StructSize, WordPosition, WORD};

/// After this many characters the rest is left out.
const SHOWN: usize = 4096;
/// How deep pointers are followed.
const DEPTH: u32 = 64;

/// Shows what the pointer at the end of `path` points to. The path begins in the struct that the union of a
/// `Message` points to, and each step is the number of a pointer.
pub(super) fn show(segments: &[&[u8]], path: &[usize]) -> String {
    let mut show = Show { segments, text: String::new() };
    let content = std::iter::once(&0).chain(path).try_fold(WordPosition::ROOT, |at, field| {
        match follow(segments, at)? {
            Pointee::Struct { start, size } if *field < size.pointers() => {
                Some(start.after(size.data() + field))
            }
            _ => None,
        }
    });
    if content.and_then(|at| show.pointer(at, 0)).is_none() {
        show.text += "...";
    }
    show.text
}

/// Shows until the text is long enough, or something is wrong: then `None`.
struct Show<'a> {
    segments: &'a [&'a [u8]],
    text: String,
}

impl<'a> Show<'a> {
    fn pointer(&mut self, at: WordPosition, depth: u32) -> Option<()> {
        if depth > DEPTH || self.text.len() > SHOWN {
            return None;
        }
        match follow(self.segments, at)? {
            Pointee::Null => self.text += "null",
            Pointee::Capability(index) => write!(self.text, "cap {index}").ok()?,
            Pointee::Struct { start, size } => self.structure(start, size, depth)?,
            Pointee::List { start, element, count } => match element {
                ElementSize::Composite => self.composite(start, depth)?,
                ElementSize::Pointer => {
                    self.text.push('[');
                    self.separated(count, |show, i| show.pointer(start.after(i), depth + 1))?;
                    self.text.push(']');
                }
                ElementSize::Byte => self.bytes(start, count)?,
                ElementSize::Void => write!(self.text, "[{count} times nothing]").ok()?,
                // Eight bits to a number.
                ElementSize::Bit => self.numbers(start, 1, count.div_ceil(8))?,
                ElementSize::TwoBytes => self.numbers(start, 2, count)?,
                ElementSize::FourBytes => self.numbers(start, 4, count)?,
                ElementSize::EightBytes => self.numbers(start, 8, count)?,
            },
        }
        Some(())
    }

    fn structure(&mut self, at: WordPosition, size: StructSize, depth: u32) -> Option<()> {
        let (data, pointers) = (size.data(), size.pointers());
        self.text.push('(');
        self.separated(data, |show, i| {
            let word = word_in(show.segments, at.after(i))?;
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
    fn composite(&mut self, at: WordPosition, depth: u32) -> Option<()> {
        let tag = Pointer(word_in(self.segments, at)?);
        let size = tag.struct_size();
        let first = at.after(1);
        self.text.push('[');
        self.separated(tag.tag_count(), |show, i| {
            let at = first.after(i.checked_mul(size.words())?);
            show.structure(at, size, depth + 1)
        })?;
        self.text.push(']');
        Some(())
    }

    fn bytes(&mut self, at: WordPosition, count: usize) -> Option<()> {
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

    /// A list of numbers of `width` bytes each.
    fn numbers(&mut self, at: WordPosition, width: usize, count: usize) -> Option<()> {
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

    fn raw(&self, at: WordPosition, bytes: usize) -> Option<&'a [u8]> {
        let start = at.word.checked_mul(WORD)?;
        self.segments.get(at.segment as usize)?.get(start..start.checked_add(bytes)?)
    }
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
