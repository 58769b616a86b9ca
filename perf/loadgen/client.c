/* The socket of a client: bytes in, packets handed on; bytes out, what is left kept. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "run.h"

static void buffer_append(Buffer *buffer, const uint8_t *bytes, size_t length)
{
    if (buffer->length + length > buffer->room) {
        buffer->room = (buffer->length + length) * 2;
        buffer->bytes = realloc(buffer->bytes, buffer->room);
        if (!buffer->bytes)
            abort();
    }
    memcpy(buffer->bytes + buffer->length, bytes, length);
    buffer->length += length;
}

static void watch(Run *run, Client *client, int operation, bool output)
{
    struct epoll_event event = {.events = EPOLLIN | (output ? EPOLLOUT : 0), .data.ptr = client};
    epoll_ctl(run->epoll, operation, client->fd, &event);
    client->watched = output;
}

static const char *name(const Client *client)
{
    return client->role == ROLE_PUBLISHER ? "publisher" : "subscriber";
}

void client_fail(Run *run, Client *client, const char *why)
{
    if (client->state == STATE_CLOSED)
        return;
    run_error(run, "%s %u: %s", name(client), client->index, why);
    if (client->state < STATE_READY && run->opening)
        run->opening--;
    client->state = STATE_CLOSED;
    close(client->fd);
}

bool client_open(Run *run, Client *client)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(run->options.port)};
    int one = 1;
    if (inet_pton(AF_INET, run->options.host, &address.sin_addr) != 1) {
        run_error(run, "the host is not an IPv4 address: %s", run->options.host);
        return false;
    }
    client->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (client->fd < 0) {
        run_error(run, "socket: %s", strerror(errno));
        return false;
    }
    setsockopt(client->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    client->state = STATE_CONNECTING;
    run->opening++;
    if (connect(client->fd, (struct sockaddr *)&address, sizeof address) && errno != EINPROGRESS) {
        client_fail(run, client, strerror(errno));
        return false;
    }
    watch(run, client, EPOLL_CTL_ADD, true);
    return true;
}

void client_send(Run *run, Client *client, const uint8_t *bytes, size_t length)
{
    if (client->out.length == 0) {
        ssize_t sent = send(client->fd, bytes, length, MSG_NOSIGNAL);
        if (sent == (ssize_t)length)
            return;
        if (sent < 0 && errno != EAGAIN && errno != EINTR) {
            client_fail(run, client, strerror(errno));
            return;
        }
        size_t taken = sent > 0 ? (size_t)sent : 0;
        bytes += taken;
        length -= taken;
    }
    buffer_append(&client->out, bytes, length);
    if (!client->watched)
        watch(run, client, EPOLL_CTL_MOD, true);
}

static void flush(Run *run, Client *client)
{
    Buffer *out = &client->out;
    if (out->length) {
        ssize_t sent = send(client->fd, out->bytes, out->length, MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN && errno != EINTR) {
            client_fail(run, client, strerror(errno));
            return;
        }
        if (sent > 0) {
            out->length -= (size_t)sent;
            memmove(out->bytes, out->bytes + sent, out->length);
        }
    }
    if (out->length)
        return;
    watch(run, client, EPOLL_CTL_MOD, false);
    if (client->role == ROLE_PUBLISHER && client->state == STATE_READY)
        publisher_complete(run, client->index, 0, 0);
}

static void packet(Run *run, Client *client, uint8_t header, const uint8_t *body, size_t length)
{
    unsigned type = header >> 4;
    if (client->state != STATE_READY)
        handshake_packet(run, client, header, body, length);
    else if (type == PACKET_PUBREL && client->role == ROLE_SUBSCRIBER)
        subscriber_release(run, client, body, length);
    else if (type == PACKET_PUBACK || type == PACKET_PUBREC || type == PACKET_PUBCOMP)
        publisher_acknowledgement(run, client, type, body, length);
    else if (type == PACKET_DISCONNECT)
        client_fail(run, client, "the broker sent DISCONNECT");
    else
        client_fail(run, client, "a packet that nobody asked for");
}

/* Hands on the whole packets; returns where the first incomplete one begins. */
static const uint8_t *scan(Run *run, Client *client, const uint8_t *at, const uint8_t *end)
{
    while (end - at >= 2) {
        const uint8_t *body = at + 1;
        int32_t remaining = wire_varint(&body, end);
        if (remaining == -1)
            break;
        if (remaining < 0 || (size_t)remaining + 5 > run->scratch_rest) {
            client_fail(run, client, "a packet longer than any that was published");
            return end;
        }
        if (end - body < remaining)
            break;
        if (*at >> 4 == PACKET_PUBLISH)
            subscriber_publish(run, client, *at, body, body + remaining);
        else
            packet(run, client, *at, body, (size_t)remaining);
        if (client->state == STATE_CLOSED)
            return end;
        at = body + remaining;
    }
    return at;
}

/* The broker has taken note of the DISCONNECT and closed the connection. */
static void left(Run *run, Client *client)
{
    close(client->fd);
    free(client->rest.bytes);
    free(client->out.bytes);
    client->rest = client->out = (Buffer){0};
    client->state = STATE_CLOSED;
    run->opening--;
    run->ready++;
}

static void receive(Run *run, Client *client)
{
    size_t rest = client->rest.length;
    if (rest)
        memcpy(run->scratch, client->rest.bytes, rest);
    ssize_t got = recv(client->fd, run->scratch + rest, READ_BYTES, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (client->state == STATE_LEAVING) {
        if (got <= 0)
            left(run, client);
        return;
    }
    if (got <= 0) {
        client_fail(run, client, got ? strerror(errno) : "the broker closed the connection");
        return;
    }
    run->now = clock_ns();
    run->replied = 0;
    const uint8_t *end = run->scratch + rest + got;
    const uint8_t *at = scan(run, client, run->scratch, end);
    if (client->state == STATE_CLOSED)
        return;
    client->rest.length = 0;
    if (at < end)
        buffer_append(&client->rest, at, (size_t)(end - at));
    if (run->replied)
        client_send(run, client, run->replies, run->replied);
}

static void connected(Run *run, Client *client)
{
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(client->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error) {
        client_fail(run, client, strerror(error));
        return;
    }
    client->state = STATE_GREETING;
    handshake_connect(run, client);
}

void client_event(Run *run, Client *client, uint32_t events)
{
    if (client->state == STATE_CONNECTING && events & (EPOLLOUT | EPOLLERR | EPOLLHUP))
        connected(run, client);
    if (client->state != STATE_CLOSED && client->state > STATE_CONNECTING && events & ~EPOLLOUT)
        receive(run, client);
    if (client->state != STATE_CLOSED && events & EPOLLOUT)
        flush(run, client);
}

void client_goodbye(Run *run, Client *client)
{
    uint8_t bytes[4];
    (void)run;
    if (client->state != STATE_NEW && client->state != STATE_CLOSED) {
        if (client->state == STATE_READY && client->out.length == 0)
            send(client->fd, bytes, wire_disconnect(bytes), MSG_NOSIGNAL);
        close(client->fd);
        client->state = STATE_CLOSED;
    }
    free(client->rest.bytes);
    free(client->out.bytes);
}
