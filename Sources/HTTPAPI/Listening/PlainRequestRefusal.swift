// A request by plain HTTP where TLS is expected.

import Domain
import NIOCore

/// Answers a request that comes without TLS, so that its sender learns more than that the connection was closed.
///
/// The first byte tells: a record of TLS begins with 22 (RFC 8446, section 5.1), a request with a letter.
final class PlainRequestRefusal: ChannelInboundHandler, RemovableChannelHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private var isRefused = false

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard !isRefused else { return }
        guard let first = unwrapInboundIn(data).readableBytesView.first, (0x41...0x5A).contains(first & 0xDF) else {
            context.fireChannelRead(data)
            context.pipeline.syncOperations.removeHandler(context: context, promise: nil)
            return
        }
        isRefused = true
        let failure = Failure(
            .malformedRequest, "This port speaks HTTPS: use https:// in the URL, or the port for plain HTTP.")
        let body = Problem.json(failure, requestID: RequestMiddleware.randomID()).text
        let answer = """
            HTTP/1.1 400 Bad Request\r
            Content-Type: application/problem+json\r
            Content-Length: \(body.utf8.count)\r
            Connection: close\r
            \r
            \(body)
            """
        context.writeAndFlush(wrapOutboundOut(ByteBuffer(string: answer)), promise: nil)
        context.close(mode: .output, promise: nil)
    }
}
