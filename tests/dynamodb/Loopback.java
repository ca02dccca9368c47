import java.io.InputStream;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import org.eclipse.jetty.server.Server;
import org.eclipse.jetty.server.ServerConnector;
import org.eclipse.jetty.server.handler.ContextHandler;
import software.amazon.dynamodb.services.local.server.LocalDynamoDBRequestHandler;
import software.amazon.dynamodb.services.local.server.LocalDynamoDBServerHandler;

/**
 * Amazon's DynamoDB Local, in memory and on loopback only; its own main class listens on
 * every interface. Prints its port, and exits when its parent exits.
 */
public class Loopback {
    public static void main(String[] arguments) throws Exception {
        // The tables are in memory, and each access key has its own.
        var requests = new LocalDynamoDBRequestHandler(0, true, null, false, false);
        var server = new Server(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0));
        server.setHandler(new ContextHandler(new LocalDynamoDBServerHandler(requests, null), "/"));
        server.start();
        System.out.println(((ServerConnector) server.getConnectors()[0]).getLocalPort());
        InputStream parent = System.in;
        while (parent.read() >= 0) {}
        Runtime.getRuntime().halt(0);
    }
}
