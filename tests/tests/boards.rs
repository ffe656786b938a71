//! Nodes with sensors and pins, on the simulator.

use std::process::Command;

use holm_tests::node::{Start, binary};

const BOUND: &str = "
[[sensor]]
name = \"greenhouse\"
driver = \"bme280\"
bus = \"i2c-1\"
[[sensor]]
name = \"cpu\"
driver = \"thermal\"
zone = \"cpu-thermal\"
[[gpio]]
name = \"door\"
line = \"GPIO17\"
direction = \"in\"
[[gpio]]
name = \"pump\"
line = \"GPIO27\"
direction = \"out\"
safe = \"low\"
";

/// The names of a process's threads.
fn threads(pid: u32) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let name = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm")).unwrap().trim().to_owned();
    tasks.map(|task| name(task.unwrap())).collect()
}

#[test]
fn a_node_has_a_thread_for_each_bus_that_is_bound_and_none_otherwise() {
    for (profile, bound) in [("host-sim", BOUND), ("host-sim", ""), ("rpi4", BOUND)] {
        let folder = tempfile::tempdir().unwrap();
        let config = format!("[board]\nprofile = \"{profile}\"\n{bound}");
        // Also without its hardware: a node without sensors is a node.
        let node = Start { config: &config, ..Start::new(folder.path()) }.run();
        let running = threads(node.pid);
        for name in ["i2c-1", "sys", "gpio"] {
            assert_eq!(running.iter().any(|running| running == name), !bound.is_empty(), "{name} in {running:?}");
        }
        node.stop();
    }
}

#[test]
fn everything_that_is_wrong_with_bindings_is_said_and_nothing_starts() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("agent.toml");
    let text = "[board]\nprofile = \"rpi9\"\ncolour = \"red\"\n[[sensor]]\nname = \"greenhouse\"\ndriver = \"bme281\"\n\
                bus = \"i2c-1\"\n[[gpio]]\nname = \"door\"\nline = \"GPIO17\"\ndirection = \"in\"\nsafe = \"low\"\n\
                [sim]\n[[sim.fault]]\ntarget = \"attic\"\nkind = \"nak\"\n";
    std::fs::write(&config, text).unwrap();
    let output = Command::new(binary("holmd")).args(["run", "--config"]).arg(&config).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    for part in ["5 problems", "line 3: board.colour", "bme281", "sht4x", "`safe` is for outputs", "rpi9", "`attic`"] {
        assert!(said.contains(part), "{part} is not in:\n{said}");
    }
}

#[test]
fn outputs_that_cannot_be_made_safe_are_said() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("agent.toml");
    std::fs::write(&config, BOUND).unwrap();
    let safe_outputs = |board: &str| {
        let mut command = Command::new(binary("holmd"));
        command.arg("safe-outputs").arg("--config").arg(&config).args(["--board", board]).output().unwrap()
    };
    assert!(safe_outputs("host-sim").status.success());
    // Nothing here has the lines of a Pi.
    let output = safe_outputs("rpi4");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("GPIO27"), "{output:?}");
}
