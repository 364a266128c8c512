/* homeport-shim: what a container runtime starts for each CNI call. It hands the call to homeportd and prints the answer.
 *
 * I/O: environment, stdin, stdout, a unix socket; a file in the journal directory when a DEL finds no daemon.
 * docs/shim.md has the protocol, the variables and every error. CNI SPEC 1.1.0 section 2 (parameters) and 5 (results).
 *
 * Invariants: no allocation and no recursion; every buffer has a fixed size and every length is checked against it;
 * every wait has a deadline; nothing reaches stdout before the whole answer is here; bytes of others are never a format.
 * src/homeport/cli/shim.py is the same program in Python; one test suite holds both to the same behaviour.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h> /* renameat */
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#ifndef VERSION
#error "VERSION is Homeport's version as a string; the Makefile passes it"
#endif

enum {
    HEADER_SIZE = 12, /* magic and two numbers, in both directions */
    ENV_MAX = 256 * 1024,
    STDIN_MAX = 4 * 1024 * 1024,
    STDOUT_MAX = 4 * 1024 * 1024,
    TEXT_MAX = 2048,   /* bytes of a message; all of ours are shorter */
    SHOWN_MAX = 256,   /* bytes of a value that a message quotes */
    OUTPUT_MAX = 16 * TEXT_MAX, /* an error object: two texts, each byte of which may become six */
    CONTAINER_ID_MAX = 218,     /* what a file name has room for, beside interface, random part and ends */
    IFNAME_MAX = 15,
    VERSION_MAX = 16, /* bytes of a cniVersion worth repeating */
    FIRST_PAUSE_MS = 10,
    LONGEST_PAUSE_MS = 100,
    PRINTING_MS = 5000,    /* how long a runtime that does not read its pipe is waited for */
    SECONDS_MAX = 1000000, /* exclusive */
};

enum cni_code { INVALID_ENVIRONMENT = 4, IO_FAILURE = 5, DECODE_FAILURE = 6, TRY_AGAIN_LATER = 11 };

static const char MAGIC[4] = {'H', 'P', 'R', '1'};
static const char SUPPORTED[] = "0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0";
static const char VERSION_INFO[] = "{\"cniVersion\":\"1.1.0\",\"supportedVersions\":[\"0.1.0\",\"0.2.0\",\"0.3.0\",\"0.3.1\",\"0.4.0\","
                                   "\"1.0.0\",\"1.1.0\"]}\n";
static const char USAGE[] =
    "usage: homeport-shim [--help | --version]\n\n" /* `homeport install` knows its own executables by this line */
    "homeport-shim: hands a CNI call (CNI_* variables and stdin) to homeportd and prints the answer.\n"
    "The name it is started by is the plugin that homeportd runs; homeport and multus are the meta-plugin.\n\n"
    "  HOMEPORT_SOCKET           socket of homeportd (/run/homeport/homeport.sock)\n"
    "  HOMEPORT_JOURNAL          where a DEL is kept while homeportd is away (/var/lib/homeport/journal)\n"
    "  HOMEPORT_CONNECT_SECONDS  how long to wait for a missing homeportd (5)\n"
    "  HOMEPORT_TIMEOUT_SECONDS  how long the whole call may take (90)\n";

/* A text that is cut where it would outgrow its place. */
struct text {
    size_t used;
    char at[TEXT_MAX];
};

/* Code 0 is success. */
struct failure {
    enum cni_code code;
    struct text msg, details;
};

/* Where a call goes and how long it may take; the texts are the variables' own, for messages. */
struct settings {
    const char *socket_path, *journal, *connect_text, *timeout_text;
    int64_t connect_ms, timeout_ms;
};

/* The request, and what is needed to tell how it ended. Instants are of CLOCK_MONOTONIC. */
struct call {
    struct settings settings;
    int64_t deadline_ms;
    const unsigned char *frame; /* header, environment, stdin */
    size_t frame_size, stdin_at;
};

struct answer {
    uint32_t exit_code, size;
};

/* Zero pages until touched: a call of the usual size costs a few of them. */
static unsigned char request_frame[HEADER_SIZE + ENV_MAX + STDIN_MAX + 1]; /* one more, to notice a stdin too long */
static unsigned char answer_bytes[STDOUT_MAX];

/* --- texts ------------------------------------------------------------------------------------------------------ */

static void add_bytes(struct text *text, const char *bytes, size_t size)
{
    size_t room = TEXT_MAX - text->used;
    if (size > room)
        size = room;
    memcpy(text->at + text->used, bytes, size);
    text->used += size;
}

static void add(struct text *text, const char *words)
{
    add_bytes(text, words, strlen(words));
}

static void add_number(struct text *text, uint64_t number)
{
    char digits[20];
    size_t first = sizeof digits;
    do {
        digits[--first] = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    add_bytes(text, digits + first, sizeof digits - first);
}

/* A value of somebody else's, in quotation marks, cut when long. */
static void add_value(struct text *text, const char *value, size_t size)
{
    add(text, "\"");
    add_bytes(text, value, size < SHOWN_MAX ? size : SHOWN_MAX);
    add(text, size > SHOWN_MAX ? "...\"" : "\"");
}

static void add_path(struct text *text, const char *path)
{
    add_value(text, path, strlen(path));
}

/* Starts a failure; what follows is added to its `msg`. */
static struct text *fail(struct failure *failure, enum cni_code code, const char *words)
{
    failure->code = code;
    failure->msg.used = failure->details.used = 0;
    add(&failure->msg, words);
    return &failure->msg;
}

static void add_errno(struct text *text, int number)
{
    add(text, ": ");
    add(text, number == EBADF ? "it is closed" : strerror(number));
}

/* --- JSON of an error object ------------------------------------------------------------------------------------ */

struct output {
    size_t used;
    char at[OUTPUT_MAX];
};

static void put(struct output *out, const char *bytes, size_t size)
{
    if (size <= OUTPUT_MAX - out->used) {
        memcpy(out->at + out->used, bytes, size);
        out->used += size;
    }
}

/* Bytes of the UTF-8 sequence at `at`; when ill-formed, minus those that one U+FFFD stands for (Unicode 15, 3.9). */
static int utf8_sequence(const unsigned char *at, size_t left)
{
    unsigned char first = at[0], low = 0x80, high = 0xBF;
    int more;
    if (first < 0x80)
        return 1;
    if (first >= 0xC2 && first <= 0xDF) {
        more = 1;
    } else if (first >= 0xE0 && first <= 0xEF) {
        more = 2;
        low = first == 0xE0 ? 0xA0 : 0x80;
        high = first == 0xED ? 0x9F : 0xBF;
    } else if (first >= 0xF0 && first <= 0xF4) {
        more = 3;
        low = first == 0xF0 ? 0x90 : 0x80;
        high = first == 0xF4 ? 0x8F : 0xBF;
    } else {
        return -1;
    }
    for (int i = 1; i <= more; i++) {
        if ((size_t)i >= left || at[i] < low || at[i] > high)
            return -i;
        low = 0x80;
        high = 0xBF;
    }
    return more + 1;
}

static void put_ascii(struct output *out, unsigned char byte)
{
    static const char short_forms[] = "\"\"\\\\\bb\ff\nn\rr\tt"; /* a byte, then what follows its backslash */
    static const char hex[] = "0123456789abcdef";
    for (size_t i = 0; i + 1 < sizeof short_forms; i += 2) {
        if ((unsigned char)short_forms[i] == byte) {
            char escape[2] = {'\\', short_forms[i + 1]};
            put(out, escape, sizeof escape);
            return;
        }
    }
    if (byte < 0x20) {
        char escape[6] = {'\\', 'u', '0', '0', hex[byte >> 4], hex[byte & 15]};
        put(out, escape, sizeof escape);
    } else {
        char plain = (char)byte;
        put(out, &plain, 1);
    }
}

/* Any bytes as a JSON string (RFC 8259, section 7); what is not UTF-8 becomes U+FFFD. */
static void put_json_string(struct output *out, const char *bytes, size_t size)
{
    put(out, "\"", 1);
    for (size_t i = 0; i < size;) {
        const unsigned char *at = (const unsigned char *)bytes + i;
        int length = utf8_sequence(at, size - i);
        if (length == 1)
            put_ascii(out, *at);
        else if (length > 1)
            put(out, bytes + i, (size_t)length);
        else
            put(out, "\xEF\xBF\xBD", 3);
        i += (size_t)(length < 0 ? -length : length);
    }
    put(out, "\"", 1);
}

/* CNI SPEC 1.1.0 section 5 "Error", in the form all executables of ours print. */
static void put_error_object(struct output *out, const struct failure *failure, const char *version, size_t version_size)
{
    struct text code = {0};
    out->used = 0;
    put(out, "{", 1);
    if (version_size > 0) {
        put(out, "\n    \"cniVersion\": ", 19);
        put_json_string(out, version, version_size);
        put(out, ",", 1);
    }
    add_number(&code, failure->code);
    put(out, "\n    \"code\": ", 13);
    put(out, code.at, code.used);
    put(out, ",\n    \"msg\": ", 13);
    put_json_string(out, failure->msg.at, failure->msg.used);
    if (failure->details.used > 0) {
        put(out, ",\n    \"details\": ", 17);
        put_json_string(out, failure->details.at, failure->details.used);
    }
    put(out, "\n}", 2);
}

/* --- the configuration's version -------------------------------------------------------------------------------- */

/* The end of the string that starts at `at` with its quotation mark: the index of the closing mark, or `size`. */
static size_t string_end(const unsigned char *json, size_t size, size_t at)
{
    for (at++; at < size && json[at] != '"'; at++)
        if (json[at] == '\\')
            at++;
    return at < size ? at : size;
}

static size_t past_blanks(const unsigned char *json, size_t size, size_t at)
{
    while (at < size && (json[at] == ' ' || json[at] == '\t' || json[at] == '\n' || json[at] == '\r'))
        at++;
    return at;
}

static bool is_version(const unsigned char *bytes, size_t size)
{
    if (size == 0 || size > VERSION_MAX)
        return false;
    for (size_t i = 0; i < size; i++)
        if (bytes[i] != '.' && (bytes[i] < '0' || bytes[i] > '9'))
            return false;
    return true;
}

/* Finds the value of the outermost object's "cniVersion"; 0 bytes when there is none that looks like a version.
 * Knows strings and brackets only: the text may be anything, and the daemon is the one that parses it. */
static size_t find_version(const unsigned char *json, size_t size, const char **found)
{
    static const char key[] = "cniVersion";
    size_t depth = 0;
    for (size_t at = 0; at < size; at++) {
        if (json[at] == '{' || json[at] == '[') {
            depth++;
        } else if ((json[at] == '}' || json[at] == ']') && depth > 0) {
            depth--;
        } else if (json[at] == '"') {
            size_t start = at + 1, end = string_end(json, size, at);
            at = end;
            if (depth != 1 || end - start != sizeof key - 1 || memcmp(json + start, key, sizeof key - 1) != 0)
                continue;
            size_t colon = past_blanks(json, size, end + 1);
            if (colon >= size || json[colon] != ':')
                continue;
            size_t value = past_blanks(json, size, colon + 1);
            if (value >= size || json[value] != '"')
                return 0;
            size_t value_end = string_end(json, size, value);
            if (value_end >= size || !is_version(json + value + 1, value_end - value - 1))
                return 0;
            *found = (const char *)json + value + 1;
            return value_end - value - 1;
        }
    }
    return 0;
}

/* --- variables -------------------------------------------------------------------------------------------------- */

/* An empty variable counts as absent. */
static const char *variable(const char *name, const char *otherwise)
{
    const char *value = getenv(name);
    return value != NULL && value[0] != '\0' ? value : otherwise;
}

/* Digits, and a fraction of up to three digits; false for anything else. */
static bool parse_seconds(const char *text, int64_t *ms)
{
    int64_t seconds = 0, scale = 1000;
    const char *at = text;
    for (; *at >= '0' && *at <= '9'; at++) {
        seconds = seconds * 10 + (*at - '0');
        if (seconds >= SECONDS_MAX)
            return false;
    }
    if (at == text)
        return false;
    *ms = seconds * 1000;
    if (*at == '\0')
        return true;
    if (*at++ != '.' || *at == '\0')
        return false;
    for (; *at >= '0' && *at <= '9' && scale > 1; at++) {
        scale /= 10;
        *ms += (*at - '0') * scale;
    }
    return *at == '\0';
}

static bool read_seconds(const char *name, const char **text, int64_t *ms, int64_t least, struct failure *failure)
{
    *text = variable(name, *text);
    if (parse_seconds(*text, ms) && *ms >= least)
        return true;
    struct text *msg = fail(failure, INVALID_ENVIRONMENT, name);
    add(msg, ": found ");
    add_path(msg, *text);
    add(msg, least > 0 ? ", expected seconds such as 0.5 or 90, above 0" : ", expected seconds such as 0, 0.5 or 90");
    return false;
}

static bool read_settings(struct settings *settings, struct failure *failure)
{
    *settings = (struct settings){
        .socket_path = variable("HOMEPORT_SOCKET", "/run/homeport/homeport.sock"),
        .journal = variable("HOMEPORT_JOURNAL", "/var/lib/homeport/journal"),
        .connect_text = "5",
        .timeout_text = "90",
    };
    size_t path_max = sizeof ((struct sockaddr_un *)0)->sun_path - 1;
    if (strlen(settings->socket_path) > path_max) {
        struct text *msg = fail(failure, INVALID_ENVIRONMENT, "HOMEPORT_SOCKET: found a path of ");
        add_number(msg, strlen(settings->socket_path));
        add(msg, " bytes, expected at most ");
        add_number(msg, path_max);
        return false;
    }
    return read_seconds("HOMEPORT_CONNECT_SECONDS", &settings->connect_text, &settings->connect_ms, 0, failure) &&
           read_seconds("HOMEPORT_TIMEOUT_SECONDS", &settings->timeout_text, &settings->timeout_ms, 1, failure);
}

/* Appends a NUL-terminated string without its NUL; false when it does not fit into `ENV_MAX`. */
static bool pack(unsigned char *env, size_t *used, const char *string, size_t size)
{
    if (size > ENV_MAX - *used)
        return false;
    memcpy(env + *used, string, size);
    *used += size;
    return true;
}

/* `KEY=VALUE\0` of each CNI_ variable, then of HOMEPORT_PLUGIN; false when that is more than `ENV_MAX` bytes. */
static bool pack_environment(unsigned char *env, size_t *used, char *const variables[], const char *plugin)
{
    static const char key[] = "HOMEPORT_PLUGIN=";
    *used = 0;
    for (; *variables != NULL; variables++)
        if (strncmp(*variables, "CNI_", 4) == 0 && strchr(*variables, '=') != NULL &&
            !pack(env, used, *variables, strlen(*variables) + 1))
            return false;
    return pack(env, used, key, sizeof key - 1) && pack(env, used, plugin, strlen(plugin) + 1);
}

static const char *plugin_name(const char *path)
{
    const char *slash = path != NULL ? strrchr(path, '/') : NULL;
    const char *name = slash != NULL ? slash + 1 : path;
    return name != NULL && name[0] != '\0' ? name : "homeport";
}

/* --- time and waiting ------------------------------------------------------------------------------------------- */

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Until `fd` is ready or broken, which the read or write that follows tells; false at the deadline. */
static bool wait_for(int fd, short events, int64_t deadline_ms)
{
    for (;;) {
        int64_t left = deadline_ms - now_ms();
        if (left <= 0)
            return false;
        struct pollfd waited = {.fd = fd, .events = events};
        int ready = poll(&waited, 1, (int)(left < INT32_MAX ? left : INT32_MAX));
        if (ready > 0 || (ready < 0 && errno != EINTR))
            return true;
    }
}

static void pause_ms(int64_t ms)
{
    struct timespec left = {.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000};
    while (nanosleep(&left, &left) < 0 && errno == EINTR)
        ;
}

static bool is_passing(int error)
{
    return error == EINTR || error == EAGAIN || error == EWOULDBLOCK;
}

/* --- stdin and stdout ------------------------------------------------------------------------------------------- */

/* Reads to the end of stdin, up to `STDIN_MAX` bytes. */
static bool read_stdin(unsigned char *into, size_t *size, const struct call *call, struct failure *failure)
{
    *size = 0;
    for (;;) {
        if (!wait_for(STDIN_FILENO, POLLIN, call->deadline_ms)) {
            struct text *msg = fail(failure, IO_FAILURE, "read network configuration from stdin: found no end within ");
            add(msg, call->settings.timeout_text);
            add(msg, " s");
            return false;
        }
        ssize_t got = read(STDIN_FILENO, into + *size, STDIN_MAX + 1 - *size);
        if (got == 0)
            return true;
        if (got < 0 && !is_passing(errno)) {
            add_errno(fail(failure, IO_FAILURE, "read network configuration from stdin"), errno);
            return false;
        }
        *size += got > 0 ? (size_t)got : 0;
        if (*size > STDIN_MAX) {
            struct text *msg = fail(failure, DECODE_FAILURE, "read network configuration from stdin: found more than ");
            add_number(msg, STDIN_MAX);
            add(msg, " bytes, expected at most that");
            return false;
        }
    }
}

/* What no longer fits into stderr's pipe is lost: nobody reads it. */
static void complain(const struct text *text)
{
    struct pollfd waited = {.fd = STDERR_FILENO, .events = POLLOUT};
    if (poll(&waited, 1, 0) > 0) {
        ssize_t written = write(STDERR_FILENO, text->at, text->used);
        (void)written;
    }
}

/* A pipe that is ready takes PIPE_BUF bytes without blocking (pipe(7)), so no more are written at once. */
static bool print(const void *bytes, size_t size)
{
    int64_t deadline_ms = now_ms() + PRINTING_MS;
    const char *at = bytes;
    while (size > 0) {
        ssize_t written = -1;
        errno = ETIMEDOUT;
        if (wait_for(STDOUT_FILENO, POLLOUT, deadline_ms))
            written = write(STDOUT_FILENO, at, size < PIPE_BUF ? size : PIPE_BUF);
        if (written < 0 && is_passing(errno))
            continue;
        if (written < 0) {
            struct text text = {0};
            add(&text, "write to stdout");
            add_errno(&text, errno);
            add(&text, "\n");
            complain(&text);
            return false;
        }
        at += written;
        size -= (size_t)written;
    }
    return true;
}

/* --- the daemon ------------------------------------------------------------------------------------------------- */

enum outcome {
    DONE,
    FAILED,  /* `failure` says how; the request may have been carried out */
    MISSING, /* nobody read the request to its end, so it was not carried out: another try is harmless */
};

struct connection {
    int fd;
    bool has_request;  /* all of it was sent, which does not say that it was read */
    bool has_answered; /* a byte at least */
};

static void write_u32(unsigned char *at, uint32_t number)
{
    for (int i = 0; i < 4; i++)
        at[i] = (unsigned char)(number >> (24 - 8 * i));
}

static uint32_t read_u32(const unsigned char *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | (uint32_t)at[3];
}

static struct text *fail_at_socket(struct failure *failure, enum cni_code code, const char *words, const struct call *call)
{
    struct text *msg = fail(failure, code, words);
    add_path(msg, call->settings.socket_path);
    return msg;
}

static void fail_late(struct failure *failure, const struct call *call)
{
    struct text *msg = fail_at_socket(failure, TRY_AGAIN_LATER, "call homeportd at ", call);
    add(msg, ": found no answer within ");
    add(msg, call->settings.timeout_text);
    add(msg, " s");
}

/* One try; the descriptor, or -1 with `*outcome` (and for MISSING, `*error`). Waits only while the daemon's queue is full. */
static int connect_once(const struct call *call, enum outcome *outcome, int *error, struct failure *failure)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int64_t left = call->deadline_ms - now_ms();
    *outcome = FAILED;
    if (left <= 0) {
        fail_late(failure, call);
        return -1;
    }
    struct timeval patience = {.tv_sec = (time_t)(left / 1000), .tv_usec = (suseconds_t)(left % 1000) * 1000};
    memcpy(address.sun_path, call->settings.socket_path, strlen(call->settings.socket_path));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience) == 0 &&
        connect(fd, (struct sockaddr *)&address, sizeof address) == 0) {
        *outcome = DONE;
        return fd;
    }
    *error = errno;
    if (fd >= 0)
        close(fd);
    if (*error == ENOENT || *error == ECONNREFUSED || *error == EINTR)
        *outcome = MISSING;
    else if (*error == EAGAIN)
        fail_late(failure, call);
    else
        add_errno(fail_at_socket(failure, IO_FAILURE, "connect to homeportd at ", call), *error);
    return -1;
}

/* Sends the frame. A peer that hung up early may still have said why: the answer is read in any case. */
static enum outcome send_request(struct connection *peer, const struct call *call, struct failure *failure)
{
    size_t sent = 0;
    while (sent < call->frame_size) {
        ssize_t taken = send(peer->fd, call->frame + sent, call->frame_size - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (taken >= 0) {
            sent += (size_t)taken;
        } else if (errno == EPIPE || errno == ECONNRESET) {
            return DONE;
        } else if (!is_passing(errno)) {
            add_errno(fail_at_socket(failure, TRY_AGAIN_LATER, "send the request to homeportd at ", call), errno);
            return FAILED;
        } else if (!wait_for(peer->fd, POLLOUT, call->deadline_ms)) {
            fail_late(failure, call);
            return FAILED;
        }
    }
    peer->has_request = true;
    return DONE;
}

/* Receives exactly `size` bytes. */
static enum outcome receive(struct connection *peer, unsigned char *into, size_t size, const struct call *call,
                            struct failure *failure)
{
    size_t got = 0;
    while (got < size) {
        if (!wait_for(peer->fd, POLLIN, call->deadline_ms)) {
            fail_late(failure, call);
            return FAILED;
        }
        ssize_t taken = recv(peer->fd, into + got, size - got, MSG_DONTWAIT);
        if (taken > 0) {
            got += (size_t)taken;
            peer->has_answered = true;
            continue;
        }
        if (taken < 0 && is_passing(errno))
            continue;
        /* Linux says ECONNRESET exactly when the peer left bytes of ours unread (unix_release_sock). */
        bool left_unread = !peer->has_request || (taken < 0 && errno == ECONNRESET);
        if (left_unread && !peer->has_answered)
            return MISSING;
        struct text *msg = fail_at_socket(failure, TRY_AGAIN_LATER, "read the answer of homeportd at ", call);
        add(msg, ": found its end after ");
        add_number(msg, got);
        add(msg, " bytes, expected ");
        add_number(msg, size);
        return FAILED;
    }
    return DONE;
}

/* Reads the answer's header; false when it cannot be one. */
static bool parse_header(const unsigned char header[HEADER_SIZE], struct answer *answer, struct text *wrong)
{
    *answer = (struct answer){.exit_code = read_u32(header + 4), .size = read_u32(header + 8)};
    if (memcmp(header, MAGIC, sizeof MAGIC) != 0) {
        add(wrong, ": found ");
        add_value(wrong, (const char *)header, sizeof MAGIC);
        add(wrong, ", expected ");
        add_value(wrong, MAGIC, sizeof MAGIC);
        return false;
    }
    if (answer->exit_code > 255) {
        add(wrong, ": found exit code ");
        add_number(wrong, answer->exit_code);
        add(wrong, ", expected at most 255");
        return false;
    }
    if (answer->size > STDOUT_MAX) {
        add(wrong, ": found a length of ");
        add_number(wrong, answer->size);
        add(wrong, " bytes, expected at most ");
        add_number(wrong, STDOUT_MAX);
        return false;
    }
    return true;
}

static enum outcome exchange(int fd, const struct call *call, struct answer *answer, struct failure *failure)
{
    struct connection peer = {.fd = fd};
    unsigned char header[HEADER_SIZE];
    struct text wrong = {0};
    enum outcome outcome = send_request(&peer, call, failure);
    if (outcome == DONE)
        outcome = receive(&peer, header, sizeof header, call, failure);
    if (outcome != DONE)
        return outcome;
    if (!parse_header(header, answer, &wrong)) {
        struct text *msg = fail_at_socket(failure, TRY_AGAIN_LATER, "read the answer of homeportd at ", call);
        add_bytes(msg, wrong.at, wrong.used);
        return FAILED;
    }
    return receive(&peer, answer_bytes, answer->size, call, failure);
}

/* Calls the daemon; a missing one is tried again until it has been missing for `connect_ms`. */
static bool call_daemon(const struct call *call, struct answer *answer, struct failure *failure)
{
    int64_t missing_until_ms = -1, step_ms = FIRST_PAUSE_MS;
    for (;;) {
        enum outcome outcome = FAILED;
        int error = ECONNRESET;
        int fd = connect_once(call, &outcome, &error, failure);
        if (fd >= 0) {
            outcome = exchange(fd, call, answer, failure);
            close(fd);
        }
        if (outcome != MISSING)
            return outcome == DONE;
        int64_t now = now_ms();
        if (missing_until_ms < 0)
            missing_until_ms = now + call->settings.connect_ms;
        int64_t until = missing_until_ms < call->deadline_ms ? missing_until_ms : call->deadline_ms;
        if (now >= until) {
            struct text *msg = fail_at_socket(failure, TRY_AGAIN_LATER, "connect to homeportd at ", call);
            add(msg, ": found nobody for ");
            add(msg, call->settings.connect_text);
            add(msg, " s");
            add_errno(msg, error);
            return false;
        }
        pause_ms(step_ms < until - now ? step_ms : until - now);
        step_ms = step_ms * 2 < LONGEST_PAUSE_MS ? step_ms * 2 : LONGEST_PAUSE_MS;
    }
}

/* --- the journal ------------------------------------------------------------------------------------------------ */

static bool is_letter_or_digit(char byte)
{
    return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') || (byte >= '0' && byte <= '9');
}

/* CNI SPEC 1.1.0 section 2: "must start with an alphanumeric character, optionally followed by any combination of one or
 * more alphanumeric characters, underscore (), dot (.) or hyphen (-)"; and no longer than a file's name allows. */
static bool is_container_id(const char *id)
{
    size_t size = strlen(id);
    if (size == 0 || size > CONTAINER_ID_MAX || !is_letter_or_digit(id[0]))
        return false;
    for (size_t i = 1; i < size; i++)
        if (!is_letter_or_digit(id[i]) && id[i] != '_' && id[i] != '.' && id[i] != '-')
            return false;
    return true;
}

/* What the kernel takes as a link's name, less what is not ASCII: it becomes part of a file's name. */
static bool is_ifname(const char *name)
{
    size_t size = strlen(name);
    if (size == 0 || size > IFNAME_MAX || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return false;
    for (size_t i = 0; i < size; i++)
        if (name[i] <= ' ' || name[i] > '~' || name[i] == '/' || name[i] == ':')
            return false;
    return true;
}

static bool write_all(int fd, const unsigned char *bytes, size_t size)
{
    while (size > 0) {
        ssize_t written = write(fd, bytes, size);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return false;
        bytes += written;
        size -= (size_t)written;
    }
    return true;
}

/* Puts the frame below `directory` as `name`, whole or not at all; the step that failed (errno says why), or NULL. */
static const char *store(int directory, const char *temporary, const char *name, const struct call *call)
{
    const char *failed = NULL;
    int fd = openat(directory, temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return "create a file";
    if (!write_all(fd, call->frame, call->frame_size))
        failed = "write";
    else if (fsync(fd) < 0)
        failed = "fsync";
    int error = errno;
    if (close(fd) < 0 && failed == NULL) {
        failed = "close";
        error = errno;
    }
    if (failed == NULL && renameat(directory, temporary, directory, name) < 0) {
        failed = "rename";
        error = errno;
    }
    if (failed != NULL) {
        unlinkat(directory, temporary, 0);
        errno = error;
        return failed;
    }
    return fsync(directory) < 0 ? "fsync the directory" : NULL;
}

/* A random part, then `<containerID>-<ifname>-<random>.del` and `.tmp-<random>`. */
static bool make_names(struct text *name, struct text *temporary, const char *id, const char *ifname)
{
    static const char digits[] = "0123456789abcdef";
    unsigned char random[8];
    char hex[16];
    if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random)
        return false;
    for (size_t i = 0; i < sizeof random; i++) {
        hex[2 * i] = digits[random[i] >> 4];
        hex[2 * i + 1] = digits[random[i] & 15];
    }
    name->used = temporary->used = 0;
    add(name, id);
    add(name, "-");
    add(name, ifname);
    add(name, "-");
    add_bytes(name, hex, sizeof hex);
    add_bytes(name, ".del", sizeof ".del"); /* with the NUL */
    add(temporary, ".tmp-");
    add_bytes(temporary, hex, sizeof hex);
    add_bytes(temporary, "", 1);
    return true;
}

/* Refuses what may not become a file's name; the details keep why the daemon was not there. */
static bool may_be_kept(const char *id, const char *ifname, struct failure *failure)
{
    struct text reason = failure->msg;
    if (!is_container_id(id)) {
        struct text *msg = fail(failure, INVALID_ENVIRONMENT, "CNI_CONTAINERID: found ");
        add_path(msg, id);
        add(msg, ", expected a letter or digit, then letters, digits, \"_\", \".\" or \"-\", at most ");
        add_number(msg, CONTAINER_ID_MAX);
    } else if (!is_ifname(ifname)) {
        struct text *msg = fail(failure, INVALID_ENVIRONMENT, "CNI_IFNAME: found ");
        add_path(msg, ifname);
        add(msg, ", expected 1 to 15 ASCII characters without \"/\", \":\" or blanks, and not \".\" or \"..\"");
    } else {
        return true;
    }
    failure->details = reason;
    return false;
}

/* Keeps a DEL that the daemon did not answer. `failure` says why it did not, and on failure also why this failed. */
static bool keep_for_later(const struct call *call, struct failure *failure)
{
    const char *id = variable("CNI_CONTAINERID", ""), *ifname = variable("CNI_IFNAME", ""), *step = "open";
    struct text name, temporary;
    if (!may_be_kept(id, ifname, failure))
        return false;
    int directory = open(call->settings.journal, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory >= 0) {
        sigset_t all, before;
        sigfillset(&all);
        step = "get random bytes";
        if (make_names(&name, &temporary, id, ifname)) {
            sigprocmask(SIG_SETMASK, &all, &before); /* a signal in between would leave the temporary file */
            step = store(directory, temporary.at, name.at, call);
            sigprocmask(SIG_SETMASK, &before, NULL);
        }
    }
    int error = errno;
    if (directory >= 0)
        close(directory);
    if (step != NULL) {
        struct text *details = &failure->details;
        add(details, "keep the DEL in ");
        add_path(details, call->settings.journal);
        add(details, ": ");
        add(details, step);
        add_errno(details, error);
        return false;
    }
    struct text note = failure->msg;
    add(&note, "; kept the DEL in ");
    add_path(&note, call->settings.journal);
    add(&note, "\n");
    complain(&note);
    return true;
}

/* --- one call --------------------------------------------------------------------------------------------------- */

static int print_failure(const struct call *call, const struct failure *failure)
{
    static struct output out;
    const char *version = NULL;
    size_t size = find_version(call->frame + call->stdin_at, call->frame_size - call->stdin_at, &version);
    put_error_object(&out, failure, version, size);
    print(out.at, out.used);
    return 1;
}

/* Builds the frame from environment and stdin. */
static bool read_request(struct call *call, char *const variables[], const char *path, struct failure *failure)
{
    size_t env_size = 0, stdin_size = 0;
    unsigned char *frame = request_frame;
    if (!pack_environment(frame + HEADER_SIZE, &env_size, variables, plugin_name(path))) {
        struct text *msg = fail(failure, INVALID_ENVIRONMENT, "CNI variables: found more than ");
        add_number(msg, ENV_MAX);
        add(msg, " bytes, expected at most that");
        return false;
    }
    if (!read_stdin(frame + HEADER_SIZE + env_size, &stdin_size, call, failure))
        return false;
    memcpy(frame, MAGIC, sizeof MAGIC);
    write_u32(frame + 4, (uint32_t)env_size);
    write_u32(frame + 8, (uint32_t)stdin_size);
    call->stdin_at = HEADER_SIZE + env_size;
    call->frame_size = call->stdin_at + stdin_size;
    return true;
}

static int run_call(const char *command, char *const variables[], const char *path)
{
    static struct failure failure;
    struct answer answer = {0};
    struct call call = {.frame = request_frame};
    if (!read_settings(&call.settings, &failure))
        return print_failure(&call, &failure);
    call.deadline_ms = now_ms() + call.settings.timeout_ms;
    if (!read_request(&call, variables, path, &failure))
        return print_failure(&call, &failure);
    if (call_daemon(&call, &answer, &failure))
        return print(answer_bytes, answer.size) ? (int)answer.exit_code : 1;
    if (failure.code == TRY_AGAIN_LATER && strcmp(command, "DEL") == 0 && keep_for_later(&call, &failure))
        return 0;
    return print_failure(&call, &failure);
}

/* --- the program ------------------------------------------------------------------------------------------------ */

/* A descriptor 0, 1 or 2 that is closed would be given to our socket, and a message written into it. One that is open
 * on nothing but a path answers reads and writes with EBADF, as a closed one does. */
static void occupy_closed_descriptors(void)
{
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/", O_PATH | O_CLOEXEC) != fd)
            _exit(1);
}

static void introduce(const char *path)
{
    struct text text = {0};
    const char *name = plugin_name(path);
    add(&text, "CNI plugin ");
    add_bytes(&text, name, strlen(name) < SHOWN_MAX ? strlen(name) : SHOWN_MAX);
    add(&text, " of Homeport " VERSION ", carried out by homeportd\nCNI protocol versions supported: ");
    add(&text, SUPPORTED);
    add(&text, "\n");
    complain(&text);
}

#ifndef WITHOUT_MAIN
int main(int argc, char **argv)
{
    extern char **environ;
    static const char version[] = "homeport-shim " VERSION "\n";
    const char *path = argc > 0 ? argv[0] : NULL, *command = variable("CNI_COMMAND", NULL);
    occupy_closed_descriptors();
    signal(SIGPIPE, SIG_IGN);
    if (argc > 1 && strcmp(argv[1], "--version") == 0)
        return print(version, sizeof version - 1) ? 0 : 1;
    if (argc > 1 && strcmp(argv[1], "--help") == 0)
        return print(USAGE, sizeof USAGE - 1) ? 0 : 1;
    if (command == NULL) {
        introduce(path);
        return 0;
    }
    if (strcmp(command, "VERSION") == 0)
        return print(VERSION_INFO, sizeof VERSION_INFO - 1) ? 0 : 1;
    return run_call(command, environ, path);
}
#endif
