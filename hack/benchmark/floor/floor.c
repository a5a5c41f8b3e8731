/*
 * The floor of the benchmark: the least that a start can cost. New mount, pid,
 * ipc, uts and (with -n) network namespaces, a root, /proc, and a program; the
 * network is a veth pair made by one message, its peer already inside under its
 * final name, on a bridge, with an IPv4 address and a default route. No checks
 * beyond "it worked", no security, no clean-up that the kernel doesn't do itself.
 *
 *	floor [-n BRIDGE] ROOT PROGRAM [ARGS...]
 *
 * The container is 10.87.0.2/16 and its gateway 10.87.0.1, which the bridge has.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/sched.h>
#include <linux/veth.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

struct message {
	struct nlmsghdr head;
	char body[1024];
};

static void *extend(struct message *m, size_t size)
{
	void *at = (char *)m + NLMSG_ALIGN(m->head.nlmsg_len);

	m->head.nlmsg_len = NLMSG_ALIGN(m->head.nlmsg_len) + size;
	return at;
}

static struct rtattr *attribute(struct message *m, int type, const void *value, size_t size)
{
	struct rtattr *a = extend(m, RTA_LENGTH(size));

	a->rta_type = type;
	a->rta_len = RTA_LENGTH(size);
	if (size)
		memcpy(RTA_DATA(a), value, size);
	return a;
}

static void number(struct message *m, int type, uint32_t value)
{
	attribute(m, type, &value, sizeof(value));
}

static void end(struct message *m, struct rtattr *nest)
{
	nest->rta_len = (char *)m + m->head.nlmsg_len - (char *)nest;
}

static void *begin(struct message *m, int type, int flags, size_t size)
{
	memset(m, 0, sizeof(*m));
	m->head.nlmsg_len = NLMSG_HDRLEN;
	m->head.nlmsg_type = type;
	m->head.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | flags;
	return extend(m, size);
}

static int route_socket(void)
{
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);

	if (fd < 0)
		err(125, "netlink socket");
	return fd;
}

static void ask(int fd, struct message *m, const char *what)
{
	char buffer[4096];
	struct nlmsghdr *answer = (void *)buffer;
	struct nlmsgerr *e;

	if (send(fd, m, m->head.nlmsg_len, 0) < 0 || recv(fd, buffer, sizeof(buffer), 0) < 0)
		err(125, "%s", what);
	e = NLMSG_DATA(answer);
	if (answer->nlmsg_type != NLMSG_ERROR || e->error)
		errx(125, "%s: %s", what, strerror(-e->error));
}

/* The pair: the host's end on the bridge and up, the peer in pid's namespace. */
static void make_pair(pid_t pid, unsigned bridge)
{
	struct message m;
	struct ifinfomsg *link = begin(&m, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, sizeof(*link));
	struct rtattr *info, *data, *peer;
	char name[IFNAMSIZ];
	int fd = route_socket();

	link->ifi_flags = link->ifi_change = IFF_UP;
	snprintf(name, sizeof(name), "fl%d", pid);
	attribute(&m, IFLA_IFNAME, name, strlen(name) + 1);
	number(&m, IFLA_MASTER, bridge);
	number(&m, IFLA_NUM_TX_QUEUES, 1);
	number(&m, IFLA_NUM_RX_QUEUES, 1);
	info = attribute(&m, IFLA_LINKINFO, NULL, 0);
	attribute(&m, IFLA_INFO_KIND, "veth", 4);
	data = attribute(&m, IFLA_INFO_DATA, NULL, 0);
	peer = attribute(&m, VETH_INFO_PEER, NULL, 0);
	extend(&m, sizeof(*link));
	attribute(&m, IFLA_IFNAME, "eth0", 5);
	number(&m, IFLA_NET_NS_PID, pid);
	number(&m, IFLA_NUM_TX_QUEUES, 1);
	number(&m, IFLA_NUM_RX_QUEUES, 1);
	end(&m, peer);
	end(&m, data);
	end(&m, info);
	ask(fd, &m, "make the pair");
	close(fd);
}

static void up(int fd, unsigned index)
{
	struct message m;
	struct ifinfomsg *link = begin(&m, RTM_NEWLINK, 0, sizeof(*link));

	link->ifi_index = index;
	link->ifi_flags = link->ifi_change = IFF_UP;
	ask(fd, &m, "set the link up");
}

static void configure(void)
{
	struct message m;
	struct ifaddrmsg *address;
	struct rtmsg *route;
	unsigned index = if_nametoindex("eth0");
	int fd = route_socket();

	address = begin(&m, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, sizeof(*address));
	address->ifa_family = AF_INET;
	address->ifa_prefixlen = 16;
	address->ifa_index = index;
	number(&m, IFA_LOCAL, inet_addr("10.87.0.2"));
	ask(fd, &m, "add the address");
	up(fd, 1);
	up(fd, index);
	route = begin(&m, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, sizeof(*route));
	route->rtm_family = AF_INET;
	route->rtm_table = RT_TABLE_MAIN;
	route->rtm_protocol = RTPROT_STATIC;
	route->rtm_type = RTN_UNICAST;
	number(&m, RTA_GATEWAY, inet_addr("10.87.0.1"));
	ask(fd, &m, "add the route");
	close(fd);
}

static void enter(const char *root)
{
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) || mount(root, root, NULL, MS_BIND | MS_REC, NULL) ||
	    chdir(root))
		err(125, "%s", root);
	if (mount("proc", "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) ||
	    mount("tmpfs", "dev", "tmpfs", MS_NOSUID, "mode=755"))
		err(125, "mount");
	if (syscall(SYS_pivot_root, ".", ".") || umount2(".", MNT_DETACH) || chdir("/"))
		err(125, "pivot_root");
}

int main(int argc, char **argv)
{
	struct clone_args args = {
		.flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS,
		.exit_signal = SIGCHLD,
	};
	unsigned bridge = 0;
	int go[2], status;
	pid_t pid;
	char byte;

	if (argc > 2 && !strcmp(argv[1], "-n")) {
		bridge = if_nametoindex(argv[2]);
		if (!bridge)
			err(125, "%s", argv[2]);
		args.flags |= CLONE_NEWNET;
		argv += 2;
		argc -= 2;
	}
	if (argc < 3)
		errx(125, "floor [-n BRIDGE] ROOT PROGRAM [ARGS...]");
	if (pipe(go))
		err(125, "pipe");
	pid = syscall(SYS_clone3, &args, sizeof(args));
	if (pid < 0)
		err(125, "clone3");
	if (!pid) {
		close(go[1]);
		enter(argv[1]);
		if (read(go[0], &byte, 1) != 1)
			return 125;
		close(go[0]);
		if (bridge)
			configure();
		execvp(argv[2], argv + 2);
		err(127, "%s", argv[2]);
	}
	if (bridge)
		make_pair(pid, bridge);
	if (write(go[1], "", 1) != 1 || waitpid(pid, &status, 0) != pid)
		err(125, "child");
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
