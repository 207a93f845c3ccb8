//! What each refusal means where it comes, and whether it heals.

use super::*;
use crate::postgres::sqlstate;

fn server(sqlstate: &str, message: &str) -> Error {
    Error::from(ServerError {
        sqlstate: sqlstate.to_owned(),
        message: message.to_owned(),
        ..ServerError::default()
    })
}

#[test]
fn a_slot_in_use_names_its_holder_in_any_language() {
    for message in ["slot \"a1\" is active for PID 4711", "Slot »a1« ist aktiv für PID 4711"] {
        let error = server("55006", message).about_slot("a1");
        assert!(matches!(error, Error::SlotActive { pid: Some(4711), .. }), "{error}");
        assert!(error.is_transient());
    }
}

#[test]
fn the_same_condition_means_the_slot_at_start_and_the_publication_later() {
    let error = |text| server("42704", text);
    assert!(matches!(error("x").about_slot("s"), Error::SlotMissing { .. }));
    assert!(matches!(
        error("x").in_stream_of("s", StreamPlace::default(), 0),
        Error::PublicationMissing(_)
    ));
}

#[test]
fn what_passes_by_itself_is_told_from_what_needs_someone() {
    let walsenders = "number of requested standby connections exceeds max_wal_senders";
    for (sqlstate, message, transient) in [
        ("08006", "connection failure", true),
        ("08P01", "unsupported startup parameter: replication", false),
        ("25006", "cannot execute CREATE PUBLICATION in a read-only transaction", true),
        ("28000", "role is not permitted to log in", false),
        ("28P01", "password authentication failed", false),
        ("3D000", "database does not exist", false),
        ("42501", "permission denied", false),
        ("42704", "undefined object", false),
        ("53100", "could not extend file: No space left on device", true),
        ("53300", "too many clients", true),
        ("53300", walsenders, true),
        ("53400", "all replication slots are in use", false),
        ("55000", "cannot read from logical replication slot", false),
        ("55006", "replication slot is active", true),
        ("57014", "canceling statement", true),
        ("57P01", "terminating connection due to administrator command", true),
        ("57P02", "terminating connection because of crash of another server process", true),
        ("57P03", "the database system is starting up", true),
        ("57P04", "database was dropped", false),
        ("XX000", "tuple concurrently updated", true),
        ("XX001", "invalid page in block 0", false),
    ] {
        assert_eq!(server(sqlstate, message).is_transient(), transient, "{sqlstate}");
    }
}

#[test]
fn what_is_said_of_a_slot_and_a_stream_is_told_by_what_it_means() {
    let about = |sqlstate| server(sqlstate, "1").about_slot("s");
    assert!(about("55006").is_transient(), "another reads it: wait");
    assert!(about("42710").is_transient(), "another made it: look again");
    for sqlstate in ["55000", "58P01", "58P02", "XX000"] {
        assert!(about(sqlstate).is_transient(), "{sqlstate}: the slot's state decides");
    }
    for sqlstate in ["42704", "53400"] {
        let error = about(sqlstate);
        assert!(!error.is_transient() && error.fix().is_some(), "{error}");
    }
    for sqlstate in ["42704", "42501"] {
        let error = server(sqlstate, "1").in_stream_of("s", StreamPlace::default(), 0);
        assert!(!error.is_transient() && error.fix().is_some(), "{error}");
    }
    for sqlstate in ["57P01", "57P02", "53100", "08006", "55000", "58P01", "58P02", "58030"] {
        assert!(
            server(sqlstate, "1").in_stream_of("s", StreamPlace::default(), 0).is_transient(),
            "{sqlstate}"
        );
    }
}

/// Whatever a function in a condition raises, by whatever way it comes up.
#[test]
fn without_its_text_no_failure_holds_a_word_of_the_servers() {
    let ways: [fn(Error) -> Error; 6] = [
        |error| error,
        Error::in_copy,
        |error| error.about_slot("s"),
        |error| error.about_slot("s").into_stuck(),
        |error| error.in_stream_of("s", StreamPlace::default(), 170_005),
        |error| Error::Hosts { attempts: vec![("db:5432".to_owned(), error)] },
    ];
    let codes = sqlstate::CONDITIONS.iter().map(|condition| format!("{:0<5}", condition.code));
    let others = ["28000", "53300", "53400", "55000", "55006", "42704", "42710", "54000", "58P01"];
    for code in codes.chain(others.map(str::to_owned)).chain(["XX000".to_owned()]) {
        for text in [
            "hunter2",
            "hunter2 max_wal_senders",
            "invalid memory alloc request size hunter2",
            "requested WAL segment hunter2 has already been removed",
        ] {
            let raised = || {
                Error::from(ServerError {
                    severity: "ERROR".to_owned(),
                    sqlstate: code.clone(),
                    message: text.to_owned(),
                    detail: Some("hunter2".to_owned()),
                    hint: Some("hunter2".to_owned()),
                    routine: None,
                })
            };
            for (way, of) in ways.iter().enumerate() {
                let (was, is) = (of(raised()), of(raised()).without_text());
                let told = format!("{is}; {is:?}; {:?}", is.fix());
                assert!(!told.contains("hunter2"), "{code} {way}: {told}");
                assert!(told.contains(&code), "{code} {way}: {told}");
                assert_eq!(is.sqlstate(), was.sqlstate(), "{code} {way}");
                assert_eq!(is.is_transient(), was.is_transient(), "{code} {way}");
            }
        }
    }
    let too_large = "invalid memory alloc request size 1132462083";
    let stuck = server("XX000", too_large).in_copy().without_text();
    assert!(stuck.to_string().contains("a row is more than 1 GB"), "{stuck}");
    assert!(!stuck.to_string().contains(too_large), "{stuck}");
}
