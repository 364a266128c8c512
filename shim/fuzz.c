/* Feeds any bytes to the parts of the shim that read what others wrote, and states what must hold afterwards.
 *
 * With clang: `make fuzz && build/fuzz-libfuzzer -max_total_time=60`, guided by coverage. With any gcc: `build/fuzz-mutating
 * ROUNDS SEED`, which mutates examples and does the same for the same arguments; the tests run that one.
 */
#define WITHOUT_MAIN
#include "homeport-shim.c"

#include <stdio.h>

#define REQUIRE(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
            abort(); \
        } \
    } while (0)

enum { STRINGS_MAX = 4096, COPY_MAX = 4096 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* RFC 3629 by its arithmetic: the shortest form, no surrogate, nothing above U+10FFFF. */
static void require_utf8(const unsigned char *bytes, size_t size)
{
    static const uint32_t least[] = {0, 0x80, 0x800, 0x10000};
    for (size_t i = 0; i < size; i++) {
        size_t more = bytes[i] < 0x80 ? 0 : bytes[i] < 0xE0 ? 1 : bytes[i] < 0xF0 ? 2 : 3;
        uint32_t point = bytes[i] & (more == 0 ? 0x7FU : 0x3FU >> more);
        REQUIRE((bytes[i] & 0xC0) != 0x80 && bytes[i] < 0xF8 && i + more < size);
        for (size_t end = i + more; i < end;) {
            REQUIRE((bytes[++i] & 0xC0) == 0x80);
            point = point << 6 | (bytes[i] & 0x3FU);
        }
        REQUIRE(point >= least[more] && point <= 0x10FFFF && (point < 0xD800 || point > 0xDFFF));
    }
}

/* A JSON string and nothing else: closed by its last byte and not before. */
static void require_json_string(const char *json, size_t size)
{
    const unsigned char *bytes = (const unsigned char *)json;
    REQUIRE(size >= 2 && bytes[0] == '"' && string_end(bytes, size, 0) == size - 1);
    for (size_t i = 0; i < size; i++)
        REQUIRE(bytes[i] >= 0x20);
    require_utf8(bytes, size);
}

static void try_header(const uint8_t *data, size_t size)
{
    struct answer answer;
    struct text wrong = {0};
    unsigned char header[HEADER_SIZE] = {0};
    memcpy(header, data, size < sizeof header ? size : sizeof header);
    bool is_one = parse_header(header, &answer, &wrong);
    REQUIRE(is_one == (wrong.used == 0));
    if (is_one)
        REQUIRE(memcmp(header, "HPR1", 4) == 0 && answer.exit_code <= 255 && answer.size <= STDOUT_MAX);
}

static void try_error(const uint8_t *data, size_t size)
{
    static struct output out;
    static struct failure failure;
    const char *version = NULL;
    size_t half = size / 2, version_size = find_version(data, size, &version);
    if (version_size > 0) {
        REQUIRE(version > (const char *)data && version + version_size < (const char *)data + size);
        REQUIRE(version_size <= VERSION_MAX && version[-1] == '"' && version[version_size] == '"');
        REQUIRE(strspn(version, "0123456789.") >= version_size);
    }
    struct text *msg = fail(&failure, TRY_AGAIN_LATER, "");
    add_value(msg, (const char *)data, half);
    add_bytes(msg, (const char *)data, size);
    add_bytes(&failure.details, (const char *)data + half, size - half);
    REQUIRE(msg->used <= TEXT_MAX && failure.details.used <= TEXT_MAX);
    put_error_object(&out, &failure, version, version_size);
    REQUIRE(out.used < OUTPUT_MAX - 6); /* or something may have been left out */
    REQUIRE(out.at[0] == '{' && memcmp(out.at + out.used - 3, "\"\n}", 3) == 0);
    out.used = 0;
    put_json_string(&out, (const char *)data, size < TEXT_MAX ? size : TEXT_MAX);
    require_json_string(out.at, out.used);
}

/* The data as strings, the first of which is the plugin's path; all of them are given `times` times. */
static void try_environment(const uint8_t *data, size_t size, size_t times)
{
    static unsigned char env[ENV_MAX];
    static char copy[COPY_MAX + 1], *variables[STRINGS_MAX + 1];
    size_t count = 0, used = 0;
    size = size < COPY_MAX ? size : COPY_MAX;
    memcpy(copy, data, size);
    copy[size] = '\0';
    for (size_t i = 0; i < times; i++)
        for (size_t at = 0; at <= size && count < STRINGS_MAX; at += strlen(copy + at) + 1)
            variables[count++] = copy + at;
    variables[count] = NULL;
    const char *plugin = plugin_name(copy);
    REQUIRE(plugin[0] != '\0' && strchr(plugin, '/') == NULL);
    bool fits = pack_environment(env, &used, variables, plugin);
    REQUIRE(used <= ENV_MAX);
    if (!fits)
        return;
    REQUIRE(env[used - 1] == '\0');
    const char *last = NULL;
    for (size_t at = 0; at < used; at += strlen(last) + 1) {
        last = (const char *)env + at;
        REQUIRE(strchr(last, '=') != NULL);
        REQUIRE(strncmp(last, "CNI_", 4) == 0 || at + strlen(last) + 1 == used);
    }
    REQUIRE(last != NULL && strncmp(last, "HOMEPORT_PLUGIN=", 16) == 0 && strcmp(last + 16, plugin) == 0);
}

static void try_words(const uint8_t *data, size_t size)
{
    char word[COPY_MAX + 1];
    struct text name, temporary;
    int64_t ms = -1;
    size = size < COPY_MAX ? size : COPY_MAX;
    memcpy(word, data, size);
    word[size] = '\0';
    if (parse_seconds(word, &ms))
        REQUIRE(ms >= 0 && ms < (int64_t)SECONDS_MAX * 1000 && strspn(word, "0123456789.") == strlen(word));
    if (is_ifname(word))
        REQUIRE(strlen(word) <= IFNAME_MAX && strpbrk(word, "/: \t\n") == NULL);
    if (is_container_id(word)) {
        REQUIRE(strpbrk(word, "/: \t\n") == NULL && word[0] != '.' && word[0] != '-');
        REQUIRE(make_names(&name, &temporary, word, "fifteen-letters"));
        REQUIRE(strlen(name.at) == name.used - 1 && name.used - 1 <= NAME_MAX);
        REQUIRE(strncmp(temporary.at, ".tmp-", 5) == 0 && strlen(temporary.at) == 21);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    switch (data[0] % 4) {
    case 0: try_header(data + 1, size - 1); break;
    case 1: try_error(data + 1, size - 1); break;
    case 2: try_environment(data + 1, size - 1, data[0] / 4 == 63 ? 256 : 1); break;
    default: try_words(data + 1, size - 1); break;
    }
    return 0;
}

#ifdef OWN_MAIN
enum { INPUT_MAX = 4096 };

static const char *const EXAMPLES[] = {
    "\1{\"cniVersion\" : \"1.1.0\", \"plugins\": [{\"type\": \"a\\\"}\", \"ipam\": {}}], \"name\":\"\xE2\x98\x83\"}",
    "\1{\"a\": {\"cniVersion\": \"0.4.0\"}, \"cniVersion\":\"1.0.0\"} \xF0\x9F\x98\x80 \xED\xA0\x80 \xC3\xA9 \\ \b\f\n\r\t\x01\x7F",
    "\2/opt/cni/bin/multus|CNI_COMMAND=ADD|CNI_ARGS=K=V;L==|CNI_|CNI_X|HOME=/root|CNI_=|=",
    "\xFE/|CNI_A=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "\3c0ffee_0123456789-abc.def", "\3eth0", "\3999999.999", "\3..",
    "\4HPR1||||||||", "\4HPR1|||\xFF|@||", /* a bar stands for NUL */
};

static uint64_t next_random(uint64_t *state) /* xorshift64*, Vigna 2016 */
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 0x2545F4914F6CDD1DU;
}

/* Changes, repeats, drops or inserts a few bytes. */
static size_t mutate(uint8_t *input, size_t size, uint64_t *state)
{
    static const char telling[] = "\"\\{}[]:./=-_ 09azAZ\n\0\x7F\x80\xBF\xC2\xE0\xED\xF4\xFF";
    for (uint64_t left = next_random(state) % 6 + 1; left > 0; left--) {
        size_t at = size > 0 ? (size_t)(next_random(state) % size) : 0, span = (size_t)(next_random(state) % 64) + 1;
        uint8_t byte = (uint8_t)telling[next_random(state) % (sizeof telling - 1)];
        switch (next_random(state) % 5) {
        case 0:
            if (size > 0)
                input[at] = byte;
            break;
        case 1:
            if (size > 0)
                input[at] ^= (uint8_t)(1U << next_random(state) % 8);
            break;
        case 2: /* drop */
            span = span < size - at ? span : size - at;
            memmove(input + at, input + at + span, size - at - span);
            size -= span;
            break;
        case 3: /* repeat */
            span = span < size - at ? span : size - at;
            if (size + span <= INPUT_MAX) {
                memmove(input + at + span, input + at, size - at);
                size += span;
            }
            break;
        default:
            if (size < INPUT_MAX) {
                memmove(input + at + 1, input + at, size - at);
                input[at] = byte;
                size++;
            }
        }
    }
    return size;
}

int main(int argc, char **argv)
{
    static uint8_t input[INPUT_MAX];
    if (argc != 3) {
        fputs("usage: fuzz-mutating ROUNDS SEED\n", stderr);
        return 2;
    }
    unsigned long rounds = strtoul(argv[1], NULL, 10);
    uint64_t state = strtoul(argv[2], NULL, 10) * 2 + 1;
    size_t size = 0;
    for (unsigned long round = 0; round < rounds; round++) {
        if (round % 16 == 0) { /* from then on each round mutates the last one's input */
            const char *example = EXAMPLES[next_random(&state) % (sizeof EXAMPLES / sizeof *EXAMPLES)];
            size_t length = strlen(example), copies = (size_t)1 << next_random(&state) % 8;
            size = 0;
            for (size_t i = 0; i < length * copies && size < INPUT_MAX; i++)
                if (i < length || i % length > 0) /* the first byte, which chooses what is tried, once */
                    input[size++] = example[i % length] == '|' ? 0 : (uint8_t)example[i % length];
        }
        uint8_t *exact = malloc(size > 0 ? size : 1); /* so that the sanitizer sees a byte too many being read */
        REQUIRE(exact != NULL);
        memcpy(exact, input, size);
        LLVMFuzzerTestOneInput(exact, size);
        free(exact);
        size = mutate(input, size, &state);
    }
    printf("%lu rounds\n", rounds);
    return 0;
}
#endif
