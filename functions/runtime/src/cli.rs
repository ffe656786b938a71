//! wasi:cli, as far as languages' standard libraries insist on it, and wasi:config.

use wasmtime::component::Resource;

use crate::bindings::wasi::cli::{
    environment, exit, stderr, stdin, stdout, terminal_input, terminal_output, terminal_stderr, terminal_stdin,
    terminal_stdout,
};
use crate::bindings::wasi::config::store;
use crate::fault::Stop;
use crate::io::{InputStream, OutputStream, STDERR, STDIN, STDOUT};
use crate::recorder::Nature;
use crate::state::State;

/// Never handed out: there is no terminal.
pub struct TerminalInput;
/// Never handed out: there is no terminal.
pub struct TerminalOutput;

impl environment::Host for State {
    fn get_environment(&mut self) -> wasmtime::Result<Vec<(String, String)>> {
        Ok(Vec::new())
    }

    fn get_arguments(&mut self) -> wasmtime::Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn initial_cwd(&mut self) -> wasmtime::Result<Option<String>> {
        Ok(None)
    }
}

impl exit::Host for State {
    fn exit(&mut self, status: Result<(), ()>) -> wasmtime::Result<()> {
        // A handler that exits has not answered, not even when it says that all is well.
        Err(Stop::Exit(u8::from(status.is_err())).into())
    }

    fn exit_with_code(&mut self, code: u8) -> wasmtime::Result<()> {
        Err(Stop::Exit(code).into())
    }
}

impl stdin::Host for State {
    fn get_stdin(&mut self) -> wasmtime::Result<Resource<InputStream>> {
        self.open_handle()?;
        Ok(Resource::new_own(STDIN))
    }
}

impl stdout::Host for State {
    fn get_stdout(&mut self) -> wasmtime::Result<Resource<OutputStream>> {
        self.open_handle()?;
        Ok(Resource::new_own(STDOUT))
    }
}

impl stderr::Host for State {
    fn get_stderr(&mut self) -> wasmtime::Result<Resource<OutputStream>> {
        self.open_handle()?;
        Ok(Resource::new_own(STDERR))
    }
}

impl terminal_stdin::Host for State {
    fn get_terminal_stdin(&mut self) -> wasmtime::Result<Option<Resource<TerminalInput>>> {
        Ok(None)
    }
}

impl terminal_stdout::Host for State {
    fn get_terminal_stdout(&mut self) -> wasmtime::Result<Option<Resource<TerminalOutput>>> {
        Ok(None)
    }
}

impl terminal_stderr::Host for State {
    fn get_terminal_stderr(&mut self) -> wasmtime::Result<Option<Resource<TerminalOutput>>> {
        Ok(None)
    }
}

impl terminal_input::Host for State {}

impl terminal_input::HostTerminalInput for State {
    fn drop(&mut self, _: Resource<TerminalInput>) -> wasmtime::Result<()> {
        Ok(())
    }
}

impl terminal_output::Host for State {}

impl terminal_output::HostTerminalOutput for State {
    fn drop(&mut self, _: Resource<TerminalOutput>) -> wasmtime::Result<()> {
        Ok(())
    }
}

impl store::Host for State {
    fn get(&mut self, key: String) -> wasmtime::Result<Result<Option<String>, store::Error>> {
        let config = &self.config;
        // Recorded although it cannot change during a call: a replay elsewhere has no configuration.
        Ok(Ok(self
            .recorder
            .answer(Nature::Own, "config.get", &key, || config.get(key.as_str()).map(|value| value.to_string()))?))
    }

    fn get_all(&mut self) -> wasmtime::Result<Result<Vec<(String, String)>, store::Error>> {
        let config = &self.config;
        let all = || config.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        Ok(Ok(self.recorder.answer(Nature::Own, "config.get-all", &(), all)?))
    }
}
