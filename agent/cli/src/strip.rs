//! Takes out of a component, or a core module, what no device needs: DWARF, and notes of tools. Functions keep their names,
//! because a trap's backtrace is made of them.

/// The header of a module or a component: a magic word and a version.
const HEADER: usize = 8;

/// Kinds of sections: custom ones are in both, and a component has modules and components inside.
const CUSTOM: u8 = 0;
const MODULE: u8 = 1;
const COMPONENT: u8 = 4;

/// How deep components may nest.
const DEEPEST: u32 = 8;

/// The same without them; as it is, where it is not built as it should be: whoever compiles it will say so.
pub(crate) fn strip(wasm: &[u8]) -> Vec<u8> {
    stripped(wasm, DEEPEST).unwrap_or_else(|| wasm.to_vec())
}

fn stripped(wasm: &[u8], depth: u32) -> Option<Vec<u8>> {
    let (header, mut rest) = wasm.split_at_checked(HEADER)?;
    let is_component = header.get(4..)? == [0x0d, 0, 1, 0];
    let depth = depth.checked_sub(1)?;
    let mut slim = header.to_vec();
    while let Some((kind, after)) = rest.split_first() {
        let (length, after) = number(after)?;
        let (body, after) = after.split_at_checked(length)?;
        rest = after;
        let inner = match *kind {
            CUSTOM if is_spare(body)? => continue,
            MODULE | COMPONENT if is_component => stripped(body, depth)?,
            _ => body.to_vec(),
        };
        slim.push(*kind);
        write(&mut slim, inner.len());
        slim.extend(inner);
    }
    Some(slim)
}

fn is_spare(section: &[u8]) -> Option<bool> {
    let (length, rest) = number(section)?;
    let name = rest.get(..length)?;
    let spare: [&[u8]; 3] = [b"producers", b"component-name", b"target_features"];
    Some(name.starts_with(b".debug") || spare.contains(&name))
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

    fn custom(name: &str, more: usize) -> Vec<u8> {
        let mut body = Vec::new();
        write(&mut body, name.len());
        body.extend(name.as_bytes());
        body.extend(vec![7; more]);
        section(CUSTOM, &body)
    }

    #[test]
    fn debug_information_goes_at_every_depth_and_names_stay() {
        let module = |more: &[u8]| [b"\0asm\x01\0\0\0", more].concat();
        let component = |inside: &[u8]| [b"\0asm\x0d\0\x01\0", &section(MODULE, inside)[..]].concat();
        let (names, debug) = (custom("name", 300), custom(".debug_info", 70_000));
        let whole = module(&[&names[..], &debug, &custom("producers", 3)].concat());
        assert_eq!(strip(&whole), module(&names));
        assert_eq!(strip(&component(&whole)), component(&module(&names)));
    }

    #[test]
    fn what_is_not_built_as_it_should_be_is_left_alone() {
        for odd in [&b""[..], b"\0asm", b"\0asm\x01\0\0\0\x00\xff\xff\xff\xff\x7f", b"\0asm\x01\0\0\0\x00\x05\x09abcd"]
        {
            assert_eq!(strip(odd), odd);
        }
    }
}
