//! How a program of a folder of jars is run: its class path, its log, and where it may leave files.

use std::fs;
use std::path::Path;

/// The class path of all jars in a folder.
pub fn class_path(jars: &Path) -> String {
    format!("{}/*", jars.display())
}

/// The arguments of the virtual machine before those of the program: it logs to standard output
/// from this level on, and leaves no file outside of `dir`.
pub fn args(memory: &[&str], dir: &Path, log_level: &str, jars: &Path) -> Vec<String> {
    let logging = format!(
        "
rootLogger.level = {log_level}
rootLogger.appenderRef.out.ref = out
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{{HH:mm:ss.SSS}} %p %c{{1}} %m%n
"
    );
    fs::write(dir.join("log4j2.properties"), logging).expect("write the log settings");
    let dir = dir.display();
    let mut args: Vec<String> = memory.iter().map(|&arg| arg.to_owned()).collect();
    args.extend([
        format!("-Dlog4j2.configurationFile={dir}/log4j2.properties"),
        // Killed, it leaves the libraries that it unpacked.
        format!("-Djava.io.tmpdir={dir}"),
        "-XX:-UsePerfData".to_owned(),
        "-cp".to_owned(),
        class_path(jars),
    ]);
    args
}
