# Make a host its own: the clock; when it has none yet or was restored, also random pool, name, machine id and ssh
# host key. Reads key=value lines on standard input: time (seconds since the epoch, decimals) and, all or none of
# them, entropy (hex), name, machine_id, ssh_host_key (the OpenSSH private key, hex). Prints "resumed" once everything
# is done and on disk. Needs perl-base only.
use strict;
use warnings;

my %given = map { /^(\w+)=(.*)$/ ? ($1 => $2) : () } <STDIN>;

# struct timeval through settimeofday(2), number 164 on x86-64
syscall(164, pack('q<q<', int($given{time}), int(($given{time} - int($given{time})) * 1e6)), 0) == 0
    or die "settimeofday: $!";
if (!exists $given{machine_id}) { print "resumed\n"; exit }

# RNDADDENTROPY _IOW('R', 3, int[2]), RNDRESEEDCRNG _IO('R', 7); the payload is {bits, bytes, data}
my $seed = pack('H*', $given{entropy});
open(my $random, '+<', '/dev/random') or die "/dev/random: $!";
ioctl($random, 0x40085203, pack('ll', 8 * length($seed), length($seed)) . $seed) or die "RNDADDENTROPY: $!";
ioctl($random, 0x5207, 0) or die "RNDRESEEDCRNG: $!";

sub replace {
    my ($path, $mode, $text) = @_;
    open(my $file, '>', "$path.new") or die "$path.new: $!";
    chmod($mode, "$path.new");
    print $file $text;
    close($file) or die "$path.new: $!";
    rename("$path.new", $path) or die "$path: $!";
}
replace('/etc/hostname', 0644, "$given{name}\n");
syscall(170, my $name = $given{name}, length($given{name})) == 0 or die "sethostname: $!";
# journald goes on writing to the folder of the id it was started with; journalctl looks below the new one
my ($journal) = grep { -d && !-l } glob('/var/log/journal/*');
symlink($journal, "/var/log/journal/$given{machine_id}") if $journal;
replace('/etc/machine-id', 0444, "$given{machine_id}\n");
replace('/etc/ssh/ssh_host_ed25519_key', 0600, pack('H*', $given{ssh_host_key}));
unlink('/etc/ssh/ssh_host_ed25519_key.pub');
if (open(my $pid, '<', '/run/sshd.pid')) { kill('HUP', <$pid> + 0) }
syscall(162); # sync(2): a power cut must find the same identity
print "resumed\n";
