// A chunk in reach of a decoder: written word by word, read at any bit through two windows.
//
// Bytes behind the chunk may hold anything; decoders know where a chunk ends.
module swb_buffer #(
    parameter BYTES = 4096,  // the largest chunk, a power of two
    parameter WORD = 64,     // bits of a write
    parameter WINDOW = 128   // bits of a window, a multiple of 8
) (
    input  wire              clk,
    input  wire              write,
    input  wire [31:0]       address,  // in words
    input  wire [WORD-1:0]   data,
    input  wire [31:0]       place_a,  // in bits
    output wire [WINDOW-1:0] window_a,
    input  wire [31:0]       place_b,
    output wire [WINDOW-1:0] window_b
);
    reg [7:0] bytes [0:BYTES-1];
    wire [WINDOW+7:0] wide_a, wide_b;

    integer k;
    always @(posedge clk)
        if (write)
            for (k = 0; k < WORD / 8; k = k + 1)
                bytes[(address * (WORD / 8) + k) % BYTES] <= data[8*k +: 8];

    genvar i;
    generate
        for (i = 0; i <= WINDOW / 8; i = i + 1) begin : byte_of
            assign wide_a[8*i +: 8] = bytes[((place_a >> 3) + i) % BYTES];
            assign wide_b[8*i +: 8] = bytes[((place_b >> 3) + i) % BYTES];
        end
    endgenerate
    assign window_a = wide_a >> place_a[2:0];
    assign window_b = wide_b >> place_b[2:0];
endmodule
