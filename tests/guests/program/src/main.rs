//! A program that knows nothing of Holm: it reads stdin, writes stdout and ends.

use std::io::Read as _;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    match text.split_once(' ') {
        Some(("exit", status)) => std::process::exit(status.trim().parse()?),
        Some(("panic", why)) => panic!("{why}"),
        _ => println!("{} bytes, {} lines", text.len(), text.lines().count()),
    }
    Ok(())
}
