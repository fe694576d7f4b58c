//! What must hold for any bytes in the place of a segment, a superblock or a snapshot.

use std::io;

use statefn_core::ports::log::{Partition, Record};

use super::{
    disk::DiskFile,
    segment::{Group, Groups, Header, Passed, Place, Point, Rest, Step, examine_rest, header_bytes, sealed},
    snapshots::{check_file, header_of},
    superblock,
};

const PARTITIONS: u32 = 3;
const LOG_ID: u64 = 7;

/// A file that can only be read.
struct Bytes<'a>(&'a [u8]);

impl DiskFile for Bytes<'_> {
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let rest = usize::try_from(at).ok().and_then(|at| self.0.get(at..)).unwrap_or_default();
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<usize> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn set_length(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn allocate(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A segment of the log: its header is made from the first bytes, what is behind them are groups.
///
/// # Panics
/// If its decoder does not do what it should.
pub fn segments(bytes: &[u8]) {
    let (head, groups) = bytes.split_at(bytes.len().min(64));
    let room = header_bytes(PARTITIONS as usize) as usize;
    let mut padded = head.to_vec();
    padded.resize(room, 0);
    check_segment(&[&padded, groups].concat());
    check_segment(&sealed(&[&padded, groups].concat(), LOG_ID, PARTITIONS));
    check_segment(bytes);
}

fn check_segment(bytes: &[u8]) {
    let room = header_bytes(PARTITIONS as usize) as usize;
    let header = match Header::decode(&bytes[..room.min(bytes.len())], PARTITIONS) {
        Ok(header) => header,
        Err(error) => return assert!(error.contains("segment"), "an error says what is wrong: {error}"),
    };
    assert_eq!(Header::decode(&header.encode(), PARTITIONS), Ok(header.clone()), "what is read is written again");
    let file = Bytes(bytes);
    let new_groups = || Groups::new(&file, header.log_id, bytes.len() as u64);
    let (mut groups, mut passing, mut places) = (new_groups(), new_groups(), Vec::new());
    let (mut point, mut passed) = (header.start.clone(), header.start);
    loop {
        let pass = passing.pass(&mut passed, &mut places).expect("bytes can be read");
        match (groups.at(&point).expect("bytes can be read"), pass) {
            (Step::Whole(group), Passed::Whole(length)) => {
                assert_eq!(length, group.bytes().len() as u64, "both ways see the same group");
                check_group(&group, header.log_id, &point);
                check_places(bytes, &group, &places);
                point.advance(&group);
            }
            (Step::Bad(wrong), Passed::Bad(also_wrong)) => {
                assert_eq!(wrong, also_wrong, "both ways see the same damage");
                break;
            }
            _ => panic!("a group is whole for one way to read it, and not for the other"),
        }
        assert_eq!(passed, point, "both ways go on at the same point");
    }
    check_rest(&file, header.log_id, &point);
}

fn check_group(group: &Group<'_>, log_id: u64, point: &Point) {
    let records: Vec<_> = group.records().map(|(partition, bytes)| Record { partition, bytes }).collect();
    let mut again = Vec::new();
    let again = Group::encode(&mut again, log_id, point, &records);
    assert!(again.records().eq(group.records()), "what is read is written again");
    assert_eq!(again.bytes().len(), group.bytes().len(), "what is read is written again");
}

fn check_places(file: &[u8], group: &Group<'_>, places: &[(Partition, Place)]) {
    let there = places.iter().map(|(partition, place)| {
        let bytes = &file[place.position as usize..][..place.length as usize];
        assert_eq!(place.crc, crc32c::crc32c(bytes), "a place has the checksum of its record");
        (*partition, bytes)
    });
    assert!(there.eq(group.records()), "the places are those of the records");
}

fn check_rest(file: &Bytes<'_>, log_id: u64, point: &Point) {
    let rest = &file.0[point.position as usize..];
    match examine_rest(file, log_id, point).expect("bytes can be read") {
        Rest::Zeros => assert!(rest.iter().all(|byte| *byte == 0), "nothing was written"),
        Rest::Torn { to } => assert_ne!(file.0[to as usize - 1], 0, "something was written up to there"),
        Rest::LaterGroup { at } => assert!(at > point.position, "a later group stands later"),
    }
}

/// One copy of a superblock.
///
/// # Panics
/// If its decoder does not do what it should.
pub fn superblocks(bytes: &[u8]) {
    let mut copy = [0; superblock::COPY_BYTES];
    let length = bytes.len().min(copy.len());
    copy[..length].copy_from_slice(&bytes[..length]);
    for copy in [copy, superblock::sealed(copy)] {
        if let Some((log_id, counter, durable)) = superblock::decode(&copy) {
            let again = superblock::encode(log_id, counter, durable);
            assert_eq!(superblock::decode(&again), Some((log_id, counter, durable)), "what is read is written again");
        }
    }
}

/// A file of a snapshot.
///
/// # Panics
/// If its decoder does not do what it should.
pub fn snapshots(bytes: &[u8]) {
    for file in [bytes, &[&header_of(bytes), bytes].concat()] {
        match check_file(file) {
            Ok(()) => {
                let whole = &header_of(&file[header_of(&[]).len()..])[..];
                assert!(file.starts_with(whole), "what is read is written again");
            }
            Err(error) => assert!(!error.is_empty(), "an error says what is wrong"),
        }
    }
}
