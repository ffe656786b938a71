//! The fuzz targets of `tests/fuzz` for a few seconds, with seeded mutations, on stable: a smoke test of what `cargo
//! fuzz` does for hours. `HOLM_FUZZ_SECONDS` sets how long each runs (default 3), `HOLM_SEED` the seed.

#[path = "../fuzz/src/admin.rs"]
mod admin;
#[path = "../fuzz/src/parsers.rs"]
mod parsers;

use std::io::{Read as _, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use holm_tests::functions::{self, Guest};
use holm_tests::node::{self, Start};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng};

/// Runs a target on its seeds and on mutations of them until the time is up; an input that fails is shown.
fn run(what: &str, seeds: &[Vec<u8>], words: &[&[u8]], mut target: impl FnMut(&[u8])) {
    let number = |name: &str, default| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (seconds, seed) = (number("HOLM_FUZZ_SECONDS", 3), number("HOLM_SEED", 20_261_121));
    let mut random = StdRng::seed_from_u64(seed);
    let mut corpus = seeds.to_vec();
    let deadline = Instant::now() + Duration::from_secs(seconds);
    let mut count = 0_u64;
    while Instant::now() < deadline {
        let input = match seeds.get(usize::try_from(count).unwrap_or(usize::MAX)) {
            Some(seed) => seed.clone(),
            None => mutate(&corpus, words, &mut random),
        };
        count += 1;
        if catch_unwind(AssertUnwindSafe(|| target(&input))).is_err() {
            panic!("{what} fails on input {count} of seed {seed}: {:?}", String::from_utf8_lossy(&input));
        }
        // Now and then a mutation is worth further ones.
        if random.random_ratio(1, 50) && input.len() < 100_000 {
            let at = random.random_range(0..256.max(corpus.len() + 1));
            if at < corpus.len() && at >= seeds.len() {
                corpus[at] = input;
            } else if corpus.len() < 256 {
                corpus.push(input);
            }
        }
    }
    println!("{what}: {count} inputs");
    assert!(count > seeds.len() as u64 + 50, "{what}: only {count} inputs");
}

fn mutate(corpus: &[Vec<u8>], words: &[&[u8]], random: &mut StdRng) -> Vec<u8> {
    let mut input = corpus[random.random_range(0..corpus.len())].clone();
    for _ in 0..random.random_range(1..6) {
        let at = random.random_range(0..=input.len());
        let end = (at + random.random_range(0..16)).min(input.len());
        match random.random_range(0..8) {
            0 => drop(input.drain(at..end)),
            1 => input.insert(at, random.random()),
            2 if at < input.len() => input[at] = random.random(),
            3 if at < input.len() => input[at] ^= 1 << random.random_range(0..8),
            4 => drop(input.splice(at..end, words[random.random_range(0..words.len())].iter().copied())),
            5 => {
                let piece = input[at..end].to_vec();
                let to = random.random_range(0..=input.len());
                drop(input.splice(to..to, piece));
            }
            6 => input.truncate(at),
            _ => {
                let other = &corpus[random.random_range(0..corpus.len())];
                let from = random.random_range(0..=other.len());
                let piece = other[from..(from + 64).min(other.len())].to_vec();
                drop(input.splice(at..at, piece));
            }
        }
    }
    input
}

#[test]
fn topics() {
    let seeds =
        ["a/b/c\n+/b/#\na/#", "#\n+\n$SYS/x\n/\n//", "a\na/\na/+\na/#\n/a"].map(|text| text.as_bytes().to_vec());
    run("topic", &seeds, &[b"+", b"#", b"/", b"$", b"\n", b"/#", b"/+", b"\0", "ä".as_bytes()], parsers::topic);
}

#[test]
fn manifests() {
    let full = Guest::new("full", "echo")
        .on("a/+")
        .trigger("schedule", "name = \"x\"\ncron = \"* * * * * *\"\nmissed = \"run-once\"")
        .trigger("function", "from = \"other\"\non = \"failure\"")
        .trigger("lifecycle", "on = [\"start\"]")
        .more("[retry]\nmax_attempts = 3\ninterval = \"1s\"\nbackoff_rate = 2.0\norder = \"block\"\n[dead_letter]\nmax_age = \"7d\"")
        .more("[config.limit]\ntype = \"number\"\ndefault = 3.5\nmin = 0\nmax = 10");
    let examples = ["scale", "counter", "machine-health", "water-loss"].map(|name| {
        std::fs::read(functions::repository().join("functions/examples").join(name).join("holm.toml")).unwrap()
    });
    let mut seeds = vec![full.manifest().into_bytes()];
    seeds.extend(examples);
    let words: [&[u8]; 14] = [
        b"\n[",
        b"]\n",
        b"=",
        b"\"",
        b"99999999999999999999",
        b"-1",
        b"nan",
        b"inf",
        b"1e400",
        b"[[",
        b"{",
        b"'''",
        b"GiB",
        b"\xf0\x9f\x98\x80",
    ];
    run("manifest", &seeds, &words, parsers::manifest);
}

#[test]
fn bundles() {
    let component = b"\0asm\x0d\0\x01\0";
    let bundle = Guest::new("tiny", "echo").on("a").bundle_of(component);
    let mut archive = Vec::new();
    zstd::Decoder::new(&bundle[..]).unwrap().read_to_end(&mut archive).unwrap();
    let inside = [&[0], &archive[..]].concat();
    let words: [&[u8]; 8] = [
        b"\x28\xb5\x2f\xfd",
        b"\xff\xff\xff\xff",
        b"ustar",
        b"77777777777",
        b"../",
        b"\0",
        b"holm.toml",
        b"\"format\":2",
    ];
    run("bundle", &[bundle, inside], &words, parsers::bundle);
}

#[test]
fn packets() {
    let folder = tempfile::tempdir().unwrap();
    let node = Start::new(folder.path()).run();
    let connect = |version: u8, rest: &[u8]| {
        let body = [&[0, 4, b'M', b'Q', b'T', b'T', version, 2, 0, 60], rest].concat();
        [&[0x10, u8::try_from(body.len()).unwrap()], &body[..]].concat()
    };
    let five = connect(5, &[0, 0, 1, b'f']);
    let four = connect(4, &[0, 1, b'f']);
    let talk: [&[u8]; 9] = [
        b"\x32\x0a\0\x03a/b\0\x01\0xy",
        b"\x34\x0a\0\x03a/b\0\x02\0xy",
        b"\x82\x07\0\x03\0\0\x01#\x01",
        b"\x82\x08\0\x04\0\0\x02$S\x02",
        b"\xa2\x06\0\x05\0\0\x01#",
        b"\x62\x02\0\x02",
        b"\x50\x02\0\x01",
        b"\xc0\0",
        b"\xe0\0",
    ];
    let seeds: Vec<Vec<u8>> = [&five, &four].map(|connect| [&connect[..], &talk.concat()].concat()).to_vec();
    let words: Vec<&[u8]> =
        talk.iter().copied().chain([&five[..], &four, b"\xff\xff\xff\x7f", b"\x26\0\x01k\0\x01v"]).collect();
    let mut checked = Instant::now();
    run("mqtt", &seeds, &words, |data| {
        let mut socket = std::net::TcpStream::connect(&node.mqtt).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let _ = socket.write_all(data);
        let _ = socket.shutdown(std::net::Shutdown::Write);
        // Whatever was sent, the connection ends when its peer has.
        let mut answer = Vec::new();
        if let Err(error) = socket.take(1 << 22).read_to_end(&mut answer) {
            assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "the connection does not end");
        }
        if checked.elapsed() > Duration::from_millis(200) {
            checked = Instant::now();
            node.admin.get("/v1/status");
        }
    });
    assert!(!node::log(folder.path()).contains("panicked"), "{}", node::log(folder.path()));
    node.stop();
}

#[test]
fn admin_requests() {
    let folder = tempfile::tempdir().unwrap();
    let node = Start { config: "[functions]\nhealth_window = \"0ms\"\n", ..Start::new(folder.path()) }.run();
    node.admin.deploy(&Guest::new("any", "echo").on("a").bundle());
    let paths = [
        "GET /v1/status",
        "GET /v1/functions",
        "DELETE /v1/functions/none",
        "POST /v1/functions/any/rollback",
        "POST /v1/functions/any/release",
        "POST /v1/functions/any/invoke",
        "POST /v1/deploy",
        "GET /v1/events?after=0&limit=5",
        "GET /v1/logs?function=any&limit=99",
        "GET /v1/results/any?series=n&after=-1",
        "GET /v1/dlq?limit=1",
        "GET /v1/dlq/1",
        "DELETE /v1/dlq/1",
        "POST /v1/dlq/1/replay",
        "POST /v1/dlq/replay?function=f&until=1",
        "GET /v1/traps?limit=1",
        "GET /v1/traps/1",
        "GET /v1/recordings?since=-1&limit=1",
        "GET /v1/buffer",
        "GET /v1/buffer/rows?stream=x&after=9",
    ];
    let request = |path: &&str| {
        format!("{path} HTTP/1.1\r\nHost: holm\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbody").into_bytes()
    };
    let seeds: Vec<Vec<u8>> = paths.iter().map(request).collect();
    let words: [&[u8]; 12] = [
        b"18446744073709551615",
        b"9223372036854775807",
        b"-1",
        b"%00",
        b"%ff",
        b"/",
        b"..",
        b"\r\n",
        b"follow=false&",
        b"limit=18446744073709551615&",
        b"after=18446744073709551615&",
        b"Transfer-Encoding: chunked\r\n",
    ];
    let socket = folder.path().join("admin.sock");
    // A stream that is asked to go on does so: that is no answer to wait for.
    run("admin", &seeds, &words, |data| {
        if !data.windows(4).any(|word| word == b"true") {
            admin::request(&socket, data);
        }
    });
    assert!(!node::log(folder.path()).contains("panicked"), "{}", node::log(folder.path()));
    node.stop();
}
