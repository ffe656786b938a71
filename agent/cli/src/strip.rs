//! Takes out of a component, or a core module, what no device needs: DWARF, and notes of tools. Functions keep their names,
//! because a trap's backtrace is made of them; but as people write them, which is half as long as what compilers make of them.
//! Those of the libraries that every function has, which are most, do not: a backtrace counts them, and what stays on the laptop
//! names them.

use rustc_demangle::demangle;

/// The header of a module or a component: a magic word and a version.
const HEADER: usize = 8;

/// The magic word.
const MAGIC: &[u8] = b"\0asm";

/// Kinds of sections: custom ones are in both, and a component has modules and components inside.
const CUSTOM: u8 = 0;
const MODULE: u8 = 1;
const COMPONENT: u8 = 4;

/// The custom section with names, and its part for functions.
const NAMES: &[u8] = b"name";
const FUNCTIONS: u8 = 1;

/// What is kept of a name, in bytes: those of generic functions can be long.
const LONGEST: usize = 100;

/// What nearly every function in Rust is made of, and nobody who writes one looks for a bug in.
const LIBRARIES: [&str; 9] = [
    "core::",
    "alloc::",
    "std::",
    "__rustc::",
    "compiler_builtins::",
    "serde_core::",
    "serde::",
    "serde_json::",
    "holm_function::",
];

/// The section with the lines.
const LINES: &[u8] = b".debug_line";

/// How deep components may nest.
const DEEPEST: u32 = 8;

/// The same without them; `None` where it is not built as it should be: whoever compiles it will say so.
pub(crate) fn strip(wasm: &[u8]) -> Option<Vec<u8>> {
    stripped(wasm, DEEPEST)
}

/// Whether its DWARF leads back to lines.
pub(crate) fn has_lines(wasm: &[u8]) -> bool {
    wasm.windows(LINES.len()).any(|name| name == LINES)
}

fn stripped(wasm: &[u8], depth: u32) -> Option<Vec<u8>> {
    let (header, mut rest) = wasm.split_at_checked(HEADER)?;
    if !header.starts_with(MAGIC) {
        return None;
    }
    let is_component = header.get(4..)? == [0x0d, 0, 1, 0];
    let depth = depth.checked_sub(1)?;
    let mut slim = header.to_vec();
    while let Some((kind, after)) = rest.split_first() {
        let section = rest;
        let (length, after) = number(after)?;
        let (body, after) = after.split_at_checked(length)?;
        rest = after;
        let inner = match *kind {
            CUSTOM => match custom(body)? {
                Some(kept) => kept,
                None => continue,
            },
            MODULE | COMPONENT if is_component => stripped(body, depth)?,
            _ => {
                // With its length as it was written, which need not be the shortest way: the lines that the whole has are
                // found by where the code begins.
                slim.extend(section.get(..section.len() - rest.len())?);
                continue;
            }
        };
        slim.push(*kind);
        write(&mut slim, inner.len());
        slim.extend(inner);
    }
    Some(slim)
}

/// What is kept of a custom section.
fn custom(section: &[u8]) -> Option<Option<Vec<u8>>> {
    let (length, rest) = number(section)?;
    let (name, body) = rest.split_at_checked(length)?;
    let spare: [&[u8]; 3] = [b"producers", b"component-name", b"target_features"];
    Some(match name {
        name if name.starts_with(b".debug") || spare.contains(&name) => None,
        NAMES => Some(names(section.get(..section.len() - body.len())?, body)?),
        _ => Some(section.to_vec()),
    })
}

/// The names of functions, shorter; those of locals and all others are left out.
fn names(begin: &[u8], mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut section = begin.to_vec();
    while let Some((kind, after)) = rest.split_first() {
        let (length, after) = number(after)?;
        let (body, after) = after.split_at_checked(length)?;
        rest = after;
        if *kind == FUNCTIONS {
            let shorter = functions(body)?;
            section.push(FUNCTIONS);
            write(&mut section, shorter.len());
            section.extend(shorter);
        }
    }
    Some(section)
}

fn functions(body: &[u8]) -> Option<Vec<u8>> {
    let (count, mut rest) = number(body)?;
    let mut names = Vec::new();
    for _ in 0..count {
        let (index, after) = number(rest)?;
        let (length, after) = number(after)?;
        let (name, after) = after.split_at_checked(length)?;
        rest = after;
        let mut name = format!("{:#}", demangle(std::str::from_utf8(name).ok()?));
        name.truncate(name.floor_char_boundary(LONGEST));
        names.push((index, name));
    }
    let rust = names.iter().any(|(_, name)| name.contains("::"));
    names.retain(|(_, name)| !rust || !is_librarys(name));
    let mut shorter = Vec::new();
    write(&mut shorter, names.len());
    for (index, name) in names {
        write(&mut shorter, index);
        write(&mut shorter, name.len());
        shorter.extend(name.as_bytes());
    }
    Some(shorter)
}

/// Whether a name in a Rust program is that of such a library, or of the C library under it.
fn is_librarys(name: &str) -> bool {
    // `<&mut alloc::string::String as core::fmt::Write>::write_str` is told by the type.
    let path = name.trim_start_matches(['<', '&', '*', '(', '[']);
    let path = path.strip_prefix("mut ").or_else(|| path.strip_prefix("const ")).unwrap_or(path);
    !name.contains("::") || LIBRARIES.iter().any(|library| path.starts_with(library))
}

/// An unsigned LEB128 number of 32 bits, and what follows.
fn number(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut value = 0_u64;
    for (index, byte) in bytes.iter().enumerate().take(5) {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((usize::try_from(value).ok()?, bytes.get(index + 1..)?));
        }
    }
    None
}

fn write(to: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        to.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut section = vec![kind];
        write(&mut section, body.len());
        section.extend(body);
        section
    }

    fn text(text: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(&mut bytes, text.len());
        bytes.extend(text.as_bytes());
        bytes
    }

    fn custom(name: &str, body: &[u8]) -> Vec<u8> {
        section(CUSTOM, &[&text(name)[..], body].concat())
    }

    /// A name section: of the module, of two functions, and of a local.
    fn names(functions: [&str; 2]) -> Vec<u8> {
        let [first, second] = functions.map(text);
        let functions = section(FUNCTIONS, &[&[2, 0][..], &first, &[200, 1], &second].concat());
        custom("name", &[section(0, &text("module")), functions, section(2, &[1, 0, 0])].concat())
    }

    #[test]
    fn debug_information_goes_at_every_depth_and_names_stay() {
        let module = |more: &[u8]| [b"\0asm\x01\0\0\0", more].concat();
        let component = |inside: &[u8]| [b"\0asm\x0d\0\x01\0", &section(MODULE, inside)[..]].concat();
        let debug = custom(".debug_info", &[7; 70_000]);
        let mangled = names(["_ZN5scale6handle17h0123456789abcdefE", "_ZN5scale5inner17h0123456789abcdefE"]);
        let whole = module(&[&mangled[..], &debug, &custom("producers", &[0]), &custom("mine", &[1])].concat());
        let [handle, inner] = ["scale::handle", "scale::inner"].map(text);
        let functions = section(FUNCTIONS, &[&[2, 0][..], &handle, &[200, 1], &inner].concat());
        let slim = module(&[custom("name", &functions), custom("mine", &[1])].concat());
        assert_eq!(strip(&whole), Some(slim.clone()));
        assert_eq!(strip(&component(&whole)), Some(component(&slim)));
        assert_eq!(strip(&slim), Some(slim), "the digest of what is stripped stays");
    }

    #[test]
    fn names_of_what_every_function_has_go_and_those_of_a_c_program_stay() {
        let module = |names: &[u8]| [b"\0asm\x01\0\0\0", names].concat();
        let kept = |both: [&str; 2]| {
            let slim = strip(&module(&names(both))).unwrap_or_default();
            both.map(|name| slim.windows(name.len()).any(|window| window == name.as_bytes()))
        };
        assert_eq!(kept(["scale::handle", "dlmalloc"]), [true, false]);
        assert_eq!(kept(["scale::handle", "core::fmt::write"]), [true, false]);
        assert_eq!(kept(["<scale::One as core::fmt::Display>::fmt", "<&mut std::io::X as a::B>::c"]), [true, false]);
        assert_eq!(kept(["handle", "parse_frame"]), [true, true]);
    }

    #[test]
    fn what_is_not_built_as_it_should_be_is_not_stripped() {
        for odd in [
            &b""[..],
            b"\0asm",
            b"elf 12345",
            b"\0asm\x01\0\0\0\x00\xff\xff\xff\xff\x7f",
            b"\0asm\x01\0\0\0\x00\x05\x09abcd",
        ] {
            assert_eq!(strip(odd), None);
        }
    }
}
